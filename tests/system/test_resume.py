"""A run that is stopped or killed, whenever, ends with the very same losses, batches and weights as one that was never disturbed."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from safetensors.torch import load_file

from tests.helpers.tiny_catalog import write_tiny_catalog
from tests.helpers.tiny_training import ROOT, finish, records, without_clock, write_config

LONG = ("--set", "training.steps=60")

# One run undisturbed, one ended by SIGTERM, then several killed soon after a random step, at a random time, or while a checkpoint is
# being written, up to four times each; what they leave is moved to `kept`.
STORY = """
import json, os, random, shutil, signal, sys, time
from pathlib import Path
from tests.helpers.forked import ended, start, steps_logged, wait_for_step

config, out, kept, kills, seed = Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5])
arguments, random = sys.argv[6:], random.Random(seed)
begun = time.monotonic()
assert ended(start(config, *arguments)) == [0]
whole = time.monotonic() - begun
out.rename(kept / "undisturbed")

child = start(config, *arguments)
wait_for_step(child, out, 3)
os.kill(child[0], signal.SIGTERM)
terminated = {"code": ended(child)[0], "logged": steps_logged(out), "saved": max(path.name for path in out.glob("checkpoints/*"))}
assert ended(start(config, *arguments)) == [0]
out.rename(kept / "terminated")


def is_writing(child):
    # stopped to look again: it could be done with the checkpoint before the kill arrives
    if any(out.glob("checkpoints/.*.*.tmp")):
        os.kill(child, signal.SIGSTOP)
        os.waitid(os.P_PID, child, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        if any(out.glob("checkpoints/.*.*.tmp")):
            return True
        os.kill(child, signal.SIGCONT)
    return False


def is_due(child, way, moment):
    if way == "time":
        return time.monotonic() >= moment
    return steps_logged(out) >= moment and (way == "step" or is_writing(child))


def was_killed(way):
    # False if the run came to its end before
    done = steps_logged(out)
    moment = time.monotonic() + random.uniform(0, 0.8 * whole) if way == "time" else random.randint(done, done + 20)
    child = start(config, *arguments)[0]
    while not is_due(child, way, moment):
        if os.waitpid(child, os.WNOHANG) != (0, 0):
            return False
        time.sleep(0.0002)
    os.kill(child, signal.SIGKILL)
    return ended([child]) == [-signal.SIGKILL]


killed, ways = [], ("step", "write", "time")
while len(killed) < kills:
    way = ways[len(killed) % len(ways)]
    alive = not was_killed(way)
    if not alive:
        unfinished = len(list(out.glob("checkpoints/.*.*.tmp")))
        killed.append({"way": way, "logged": steps_logged(out), "unfinished": unfinished})
    if alive or len(killed) % 4 == 0 or len(killed) == kills:  # now it may end
        assert alive or ended(start(config, *arguments)) == [0]
        out.rename(kept / f"killed-{len(killed)}")
print(json.dumps({"terminated": terminated, "killed": killed}))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With `whole`, a run of a process of its own: another hash seed than all others have."""
    folder = tmp_path_factory.mktemp("resume")
    write_tiny_catalog(folder / "catalog")
    finish(write_config(folder, folder / "catalog", folder / "whole"), *LONG)
    return folder


def tell(folder: Path, kept: Path, kills: int) -> dict[str, Any]:
    config, seed = write_config(kept, folder / "catalog", kept / "run"), random.randrange(2**31)
    words = map(str, [config, kept / "run", kept, kills, seed, *LONG])
    one_thread = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
    }  # as `whole` had: the last bit of a sum hangs on how it is shared out
    done = subprocess.run(
        [sys.executable, "-c", STORY, *words],
        cwd=ROOT,
        env=one_thread,
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.returncode == 0, f"seed {seed}: {done.stderr}"
    return json.loads(done.stdout.splitlines()[-1])


def compare(out: Path, whole: Path) -> None:
    for kind in ("train", "update", "eval", "final"):
        assert without_clock(records(out, kind)) == without_clock(
            records(whole, kind)
        )  # losses, and a hash of each batch
    for name in ("weights.parquet", "usage.parquet"):
        assert pq.read_table(out / name).equals(pq.read_table(whole / name))
    ours, theirs = (load_file(run / "model" / "model.safetensors") for run in (out, whole))
    assert ours.keys() == theirs.keys()
    assert all(ours[name].equal(theirs[name]) for name in theirs)
    assert not [*out.glob(".*.tmp"), *out.glob("checkpoints/.*.tmp")]


@pytest.mark.parametrize("kills", [3, pytest.param(20, marks=pytest.mark.slow)])
def test_stopped_and_killed_at_random_moments_it_ends_the_same(
    folder: Path, tmp_path: Path, kills: int
) -> None:
    told = tell(folder, tmp_path, kills)
    stopped = told["terminated"]
    assert stopped["code"] == 143
    assert 3 <= stopped["logged"] < 60
    assert stopped["saved"] == f"{stopped['logged']:010d}"  # whole, before the process ended
    assert len(told["killed"]) == kills
    assert all(kill["unfinished"] for kill in told["killed"] if kill["way"] == "write")
    ended = sorted(path.parent for path in tmp_path.glob("*/metrics.jsonl"))
    assert len(ended) >= 2 + kills // 4
    for out in ended:
        compare(out, folder / "whole")
