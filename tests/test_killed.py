"""A build killed at random moments: it always ends in the same catalog, and what was done is never done again."""

import json
import random
import subprocess
import sys

from data_catalog.manifest import read_manifest

# The children are forked from a process that has the slow imports behind it, and that never starts a thread itself.
STORY = """
import json, os, random, shutil, signal, sys, time
from pathlib import Path

import sentence_transformers
from data_catalog.manifest import read_manifest
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
    return {str(path): path.stat().st_mtime_ns for path in out.glob("work/*/*/part.json")}


began = time.perf_counter()
assert os.waitpid(start(), 0)[1] == 0
whole = time.perf_counter() - began
found = [read_manifest(out)["fingerprint"]]
repeated, killed_at = 0, []
shutil.rmtree(out)
while len(killed_at) < kills:
    child = start()
    time.sleep(random.uniform(0, 0.6 * whole))
    os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    before = done()
    if status:
        killed_at.append(len(before))
    else:
        found.append(read_manifest(out)["fingerprint"])
        shutil.rmtree(out)
        continue
    child = start()
    time.sleep(random.uniform(0, 0.3 * whole))
    os.kill(child, signal.SIGKILL)
    if os.waitpid(child, 0)[1]:
        after = done()
        repeated += sum(after.get(path) != made for path, made in before.items())
        killed_at.append(len(after))
assert os.waitpid(start(), 0)[1] == 0
found.append(read_manifest(out)["fingerprint"])
left = [str(path) for path in out.glob("work/*/.*.tmp")]
print(json.dumps({"found": found, "killed_at": killed_at, "repeated": repeated, "left": left}))
"""


def test_sigkill_at_twenty_random_points(built, tmp_path):
    settings = {**built[1], "out": str(tmp_path / "catalog")}
    arguments = [sys.executable, "-c", STORY, json.dumps(settings), "20", str(random.randrange(2**31))]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert set(told["found"]) == {read_manifest(built[0])["fingerprint"]}
    assert told["repeated"] == 0  # a finished part is never made again
    assert told["left"] == []
    assert len(told["killed_at"]) >= 20
    assert len(set(told["killed_at"])) > 3  # the kills fell on different stages
