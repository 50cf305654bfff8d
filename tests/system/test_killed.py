"""Builds killed at random moments end with the same catalog and never repeat finished work."""

import json
import os
import random
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from data_catalog.format.manifest import read_manifest
from data_catalog.settings import parse
from tests.helpers.processes import run_in_process


def build_in_child(settings: dict[str, Any], parts_left: int | None = None) -> int:
    """Fork a process that builds, and return its id. It kills itself after `parts_left` parts."""
    from pipeline.config import Build
    from pipeline.run import build, one_by_one

    def dying(stage: Any, function: Any, calls: Any) -> Any:
        nonlocal parts_left
        parts = []
        for arguments in calls:
            if parts_left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            parts_left -= 1
            parts.append(function(*arguments))
        return parts

    child = os.fork()
    if not child:
        build(parse(Build, settings, "test"), one_by_one if parts_left is None else dying)
        os._exit(0)
    return child


def finished_parts(out: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in out.glob("work/*/[!.]*/part.json")}


def kill_after(child: int, out: Path, parts: int, delay: float) -> bool:
    """Kill a build `delay` seconds after `parts` are finished. Return False if it ended before."""
    ended = (0, 0)
    while len(finished_parts(out)) < parts and ended == (0, 0):
        time.sleep(0.001)
        ended = os.waitpid(child, os.WNOHANG)
    time.sleep(delay)
    if ended == (0, 0):
        os.kill(child, signal.SIGKILL)
        ended = os.waitpid(child, 0)
    return bool(ended[1])


def kill_builds(settings: dict[str, Any], kills: int, seed: int, report: Path) -> None:
    """Build once without kills, then kill builds at random moments. Every third one may finish."""
    import sentence_transformers  # noqa: F401 (imported once, before the children are forked)

    out, chance = Path(settings["out"]), random.Random(seed)
    assert os.waitpid(build_in_child(settings), 0)[1] == 0
    fingerprints, parts = [read_manifest(out).fingerprint], len(finished_parts(out))
    repeated, killed_at, left = 0, [], []
    shutil.rmtree(out)
    before: dict[str, int] = {}
    while len(killed_at) < kills:
        moment = chance.randint(len(before), parts), chance.uniform(0, 0.1)
        alive = not kill_after(build_in_child(settings), out, *moment)
        after = finished_parts(out)
        repeated += sum(after.get(path) != made for path, made in before.items())
        killed_at += [] if alive else [len(after)]
        before = after
        if alive or len(killed_at) % 3 == 0:  # this build may finish
            assert os.waitpid(build_in_child(settings), 0)[1] == 0
            fingerprints.append(read_manifest(out).fingerprint)
            left += list(map(str, out.glob("work/*/.*.tmp")))
            shutil.rmtree(out)
            before = {}
    report.write_text(
        json.dumps(
            {
                "fingerprints": fingerprints,
                "killed_at": killed_at,
                "repeated": repeated,
                "left": left,
            }
        )
    )


@pytest.mark.parametrize("kills", [3, pytest.param(20, marks=pytest.mark.slow)])
def test_builds_killed_at_random_moments(built, tmp_path, kills):
    settings = {**built[1], "out": str(tmp_path / "catalog")}
    report = tmp_path / "report.json"
    run_in_process(kill_builds, settings, kills, random.randrange(2**31), report)
    result = json.loads(report.read_text())
    assert len(result["fingerprints"]) >= 2
    assert set(result["fingerprints"]) == {read_manifest(built[0]).fingerprint}
    assert result["repeated"] == 0  # a finished part is never repeated
    assert result["left"] == []
    assert len(result["killed_at"]) >= kills
    assert len(set(result["killed_at"])) > kills // 8  # the kills hit different stages


def kill_between_parts(settings: dict[str, Any]) -> None:
    import sentence_transformers  # noqa: F401

    for parts in (3, 6, 9):
        status = os.waitpid(build_in_child(settings, parts), 0)[1]
        assert os.waitstatus_to_exitcode(status) == -signal.SIGKILL
        assert not (Path(settings["out"]) / "catalog.json").exists()
    assert os.waitpid(build_in_child(settings), 0)[1] == 0


def test_a_build_killed_between_parts_ends_with_the_same_catalog(built, tmp_path):
    settings = {**built[1], "out": str(tmp_path / "catalog")}
    run_in_process(kill_between_parts, settings)
    assert read_manifest(tmp_path / "catalog").fingerprint == read_manifest(built[0]).fingerprint
