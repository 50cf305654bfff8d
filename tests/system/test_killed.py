"""A build killed at random moments: it always ends in the same catalog, and what was done is never done again."""

import json
import random
import subprocess
import sys

import pytest

from data_catalog.format.manifest import read_manifest

# The children are forked from a process that has the slow imports behind it, and that never starts a thread itself.
STORY = """
import json, os, random, shutil, signal, sys, time
from pathlib import Path

import sentence_transformers
from data_catalog.format.manifest import read_manifest
from data_catalog.settings import parse
from pipeline.config import Build
from pipeline.run import build

settings, kills, seed = json.loads(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
out, random = Path(settings["out"]), random.Random(seed)


def start():
    child = os.fork()
    if not child:
        build(parse(Build, settings, "test"))
        os._exit(0)
    return child


def done():
    return {str(path): path.stat().st_mtime_ns for path in out.glob("work/*/[!.]*/part.json")}


def killed(child, parts):
    # at a random moment soon after so many parts are done; False if it was done itself
    ended = (0, 0)
    while len(done()) < parts and ended == (0, 0):
        time.sleep(0.001)
        ended = os.waitpid(child, os.WNOHANG)
    time.sleep(random.uniform(0, 0.1))
    if ended == (0, 0):
        os.kill(child, signal.SIGKILL)
        ended = os.waitpid(child, 0)
    return bool(ended[1])


assert os.waitpid(start(), 0)[1] == 0
found, parts = [read_manifest(out).fingerprint], len(done())
repeated, killed_at, left = 0, [], []
shutil.rmtree(out)
before = {}
while len(killed_at) < kills:
    alive = not killed(start(), random.randint(len(before), parts))
    after = done()
    repeated += sum(after.get(path) != made for path, made in before.items())
    killed_at += [] if alive else [len(after)]
    before = after
    if alive or len(killed_at) % 3 == 0:  # now it may end
        assert os.waitpid(start(), 0)[1] == 0
        found.append(read_manifest(out).fingerprint)
        left += list(map(str, out.glob("work/*/.*.tmp")))
        shutil.rmtree(out)
        before = {}
print(json.dumps({"found": found, "killed_at": killed_at, "repeated": repeated, "left": left}))
"""


@pytest.mark.parametrize("kills", [3, pytest.param(20, marks=pytest.mark.slow)])
def test_sigkill_at_random_points(built, tmp_path, kills):
    settings = {**built[1], "out": str(tmp_path / "catalog")}
    arguments = [
        sys.executable,
        "-c",
        STORY,
        json.dumps(settings),
        str(kills),
        str(random.randrange(2**31)),
    ]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert set(told["found"]) == {read_manifest(built[0]).fingerprint}
    assert told["repeated"] == 0  # a finished part is never made again
    assert told["left"] == []
    assert len(told["killed_at"]) >= kills
    assert len(set(told["killed_at"])) > kills // 8  # the kills fell on different stages
