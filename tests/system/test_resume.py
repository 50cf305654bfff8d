"""A run that is stopped or killed at any moment ends like an undisturbed one.

Losses, batches and weights are the same.
"""

import json
import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from safetensors.torch import load_file

from tests.helpers import forked
from tests.helpers.processes import run_in_process
from tests.helpers.tiny_catalog import write_tiny_catalog
from tests.helpers.tiny_training import finish, records, without_clock, write_config

LONG = ("--set", "training.steps=60")


def is_writing(child: int, out: Path) -> bool:
    """Return whether a checkpoint is being written, with the process stopped if it is."""
    if any(out.glob("checkpoints/.*.*.tmp")):
        # stopped to look again: the checkpoint could be complete before the kill arrives
        os.kill(child, signal.SIGSTOP)
        os.waitid(os.P_PID, child, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        if any(out.glob("checkpoints/.*.*.tmp")):
            return True
        os.kill(child, signal.SIGCONT)
    return False


class Disturber:
    """Runs that are stopped and killed. Each one's files are moved into a folder of their own."""

    def __init__(self, config: Path, kept: Path, seed: int) -> None:
        self.config, self.out, self.kept = config, kept / "run", kept
        self.random = random.Random(seed)
        self.seconds = 0.0  # of a whole run

    def start(self) -> list[int]:
        return forked.start(self.config, *LONG)

    def finish(self, name: str) -> None:
        assert forked.ended(self.start()) == [0]
        self.out.rename(self.kept / name)

    def terminate(self) -> dict[str, Any]:
        child = self.start()
        forked.wait_for_step(child, self.out, 3)
        os.kill(child[0], signal.SIGTERM)
        code = forked.ended(child)[0]
        saved = max(path.name for path in self.out.glob("checkpoints/*"))
        return {"code": code, "logged": forked.steps_logged(self.out), "saved": saved}

    def is_due(self, child: int, way: str, moment: float) -> bool:
        if way == "time":
            return time.monotonic() >= moment
        reached = forked.steps_logged(self.out) >= moment
        return reached and (way == "step" or is_writing(child, self.out))

    def kill(self, way: str) -> bool:
        """Kill a run, and return whether it was killed. It may have come to its end before."""
        done = forked.steps_logged(self.out)
        child = self.start()[0]
        if way == "time":
            moment = time.monotonic() + self.random.uniform(0, 0.8 * self.seconds)
        else:
            moment = self.random.randint(done, done + 20)
        while not self.is_due(child, way, moment):
            if os.waitpid(child, os.WNOHANG) != (0, 0):
                return False
            time.sleep(0.0002)
        os.kill(child, signal.SIGKILL)
        return forked.ended([child]) == [-signal.SIGKILL]


def disturb(config: Path, kept: Path, kills: int, seed: int) -> None:
    """One run undisturbed; one ended by SIGTERM; then several killed, up to four times each.

    They are killed soon after a random step, at a random time, or during a checkpoint.
    """
    runs = Disturber(config, kept, seed)
    begun = time.monotonic()
    runs.finish("undisturbed")
    runs.seconds = time.monotonic() - begun
    terminated = runs.terminate()
    runs.finish("terminated")
    killed: list[dict[str, Any]] = []
    ways = ("step", "write", "time")
    while len(killed) < kills:
        way = ways[len(killed) % len(ways)]
        alive = not runs.kill(way)
        if not alive:
            unfinished = len(list(runs.out.glob("checkpoints/.*.*.tmp")))
            logged = forked.steps_logged(runs.out)
            killed.append({"way": way, "logged": logged, "unfinished": unfinished})
        name = f"killed-{len(list(kept.glob('killed-*')))}"  # several can end between two kills
        if alive:
            runs.out.rename(kept / name)
        elif len(killed) % 4 == 0 or len(killed) == kills:  # now it may end
            runs.finish(name)
    (kept / "report.json").write_text(json.dumps({"terminated": terminated, "killed": killed}))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With `whole`, a run of a process of its own: another hash seed than all others have."""
    folder = tmp_path_factory.mktemp("resume")
    write_tiny_catalog(folder / "catalog")
    finish(write_config(folder, folder / "catalog", folder / "whole"), *LONG)
    return folder


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


def stop_during_the_first_evaluation(config: Path, reached: Path) -> None:
    from trainer.run import Run

    def evaluate(*_: Any) -> None:
        reached.touch()
        time.sleep(60)

    Run.evaluate = evaluate  # type: ignore[method-assign, assignment]
    children = forked.start(config)
    while not reached.exists():
        time.sleep(0.01)
    started = time.monotonic()
    os.kill(children[0], signal.SIGTERM)
    assert forked.ended(children) == [-signal.SIGTERM]
    assert time.monotonic() - started < 30


def test_before_its_first_step_a_run_ends_at_once(folder: Path, tmp_path: Path) -> None:
    config = write_config(tmp_path, folder / "catalog", tmp_path / "run")
    run_in_process(stop_during_the_first_evaluation, config, tmp_path / "reached")


@pytest.mark.parametrize("kills", [3, pytest.param(20, marks=pytest.mark.slow)])
def test_stopped_and_killed_at_random_moments_it_ends_the_same(
    folder: Path, tmp_path: Path, kills: int
) -> None:
    config = write_config(tmp_path, folder / "catalog", tmp_path / "run")
    run_in_process(disturb, config, tmp_path, kills, random.randrange(2**31))
    told = json.loads((tmp_path / "report.json").read_text())
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
