"""Stages on this machine: order, retries, dead processes, and what ends them."""

import errno
import logging
import os
import signal
import threading
from pathlib import Path

import pytest

from data_catalog.errors import UserError
from data_catalog.format.accounts import Account, Tally
from pipeline.engine.local import LocalStages
from pipeline.engine.worker import MAXIMUM_ATTEMPTS
from pipeline.parts import Part

RUNNERS = ["threads", pytest.param("processes", marks=pytest.mark.system)]


def count(folder: Path, rows: int) -> Part:
    logging.getLogger("test").warning("%d rows", rows)
    return Part(folder, "f", Account(read=Tally(rows=rows), kept=Tally(rows=rows)), 0.0)


def mark(folder: Path) -> int:
    """Note an attempt in a folder and return how many there were before."""
    folder.mkdir(exist_ok=True)
    before = len(list(folder.iterdir()))
    (folder / str(before)).touch()
    return before


def fail_once(folder: Path, rows: int) -> Part:
    if rows == 2 and not mark(folder):
        raise ConnectionError("reset")
    return count(folder, rows)


def die_once(folder: Path, rows: int) -> Part:
    if rows == 2 and not mark(folder):
        os.kill(os.getpid(), signal.SIGKILL)
    return count(folder, rows)


def die(folder: Path) -> Part:
    os.kill(os.getpid(), signal.SIGKILL)
    return count(folder, 0)


@pytest.mark.parametrize("runner", RUNNERS)
def test_results_keep_their_order_and_warnings_arrive(tmp_path, runner, caplog):
    seen: list[str] = []
    calls = [(tmp_path / f"part-{rows}", rows) for rows in range(30)]
    with LocalStages(runner, 2) as stages:
        parts = stages("stage", count, calls, lambda part: seen.append(part.name))
        again = stages("other", count, calls[:1])
    assert [part.account.read.rows for part in parts] == list(range(30))
    assert sorted(seen) == sorted(part.name for part in parts)
    assert [part.name for part in again] == ["part-0"]
    assert [message for message in caplog.messages if message == "7 rows"] == ["7 rows"]


@pytest.mark.parametrize("runner", RUNNERS)
def test_a_part_that_may_succeed_is_tried_again(tmp_path, runner):
    with LocalStages(runner, 2) as stages:
        parts = stages("stage", fail_once, [(tmp_path / str(rows), rows) for rows in range(4)])
    assert [part.account.read.rows for part in parts] == [0, 1, 2, 3]
    assert len(list((tmp_path / "2").iterdir())) == 2


@pytest.mark.parametrize(
    ("error", "attempts"),
    [
        (UserError("invalid"), 1),
        (OSError(errno.ENOSPC, "No space left on device", "/data/part.json"), 1),
        (ConnectionError("reset"), MAXIMUM_ATTEMPTS),
    ],
)
def test_only_what_may_pass_by_itself_is_retried(tmp_path, error, attempts, monkeypatch):
    monkeypatch.setattr("pipeline.engine.local.PART_RETRY_SECONDS", 0.0)
    attempted = []

    def fail(folder):
        attempted.append(folder)
        raise error

    with pytest.raises(type(error)), LocalStages() as stages:
        stages("stage", fail, [(tmp_path / "a",)])
    assert len(attempted) == attempts


@pytest.mark.system
def test_a_process_that_dies_costs_nothing_but_its_parts(tmp_path):
    with LocalStages("processes", 2) as stages:
        parts = stages("stage", die_once, [(tmp_path / str(rows), rows) for rows in range(6)])
    assert [part.account.read.rows for part in parts] == list(range(6))


@pytest.mark.system
def test_processes_that_always_die_end_the_build(tmp_path):
    with (
        pytest.raises(RuntimeError, match=r"^stage: .*--workers"),
        LocalStages("processes", 1) as stages,
    ):
        stages("stage", die, [(tmp_path / "a",)])


def test_after_an_error_no_part_begins(tmp_path):
    begun = []

    def fail_first(folder, rows):
        begun.append(rows)
        if rows == 0:
            raise UserError("invalid")
        return count(folder, rows)

    calls = [(tmp_path / str(rows), rows) for rows in range(100)]
    with pytest.raises(UserError), LocalStages("threads", 1) as stages:
        stages("stage", fail_first, calls)
    assert len(begun) <= 2


def test_an_interruption_does_not_wait_for_parts(tmp_path):
    released, ended = threading.Event(), []

    def quick_or_slow(folder):
        if folder.name == "slow":
            released.wait(60)
            ended.append(folder)
        return count(folder, 0)

    def interrupt(_part):
        raise KeyboardInterrupt

    calls = [(tmp_path / "quick",), (tmp_path / "slow",)]
    with pytest.raises(KeyboardInterrupt), LocalStages("threads", 2) as stages:
        stages("stage", quick_or_slow, calls, interrupt)
    assert not ended
    released.set()
