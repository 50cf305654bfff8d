"""Parts as Prefect tasks: order of results, batching and retries."""

import errno

import pytest

from data_catalog.errors import UserError
from data_catalog.format.accounts import Account, Tally
from pipeline.parts import Part


def run_stage(function, calls):
    from prefect import flow

    from flows.build import as_tasks

    @flow
    def stage():
        return as_tasks("stage", function, calls)

    return stage()


def test_results_are_in_the_order_of_the_calls(tmp_path, prefect_server):
    def count(folder, rows):
        return Part(folder, "f", Account(read=Tally(rows=rows), kept=Tally(rows=rows)), 0.0)

    parts = run_stage(
        count, [(tmp_path / name, rows) for name, rows in (("a", 3), ("b", 1), ("c", 2))]
    )
    assert [(part.name, part.account.read.rows) for part in parts] == [("a", 3), ("b", 1), ("c", 2)]


def test_many_parts_share_tasks(tmp_path, prefect_server, monkeypatch):
    monkeypatch.setattr("flows.build.MAXIMUM_STAGE_TASKS", 2)

    def count(folder, rows):
        return Part(folder, "f", Account(read=Tally(rows=rows), kept=Tally(rows=rows)), 0.0)

    parts = run_stage(count, [(tmp_path / str(rows), rows) for rows in range(5)])
    assert [part.account.read.rows for part in parts] == [0, 1, 2, 3, 4]
    assert run_stage(count, []) == []


@pytest.mark.parametrize(
    ("error", "attempts"),
    [
        (UserError("invalid"), 1),
        (OSError(errno.ENOSPC, "No space left on device", "/data/part.json"), 1),
        (ConnectionError("reset"), 3),
    ],
)
def test_only_what_may_pass_by_itself_is_retried(tmp_path, prefect_server, error, attempts):
    attempted = []

    def fail(folder):
        attempted.append(folder)
        raise error

    with pytest.raises(type(error)):
        run_stage(fail, [(tmp_path / "a",)])
    assert len(attempted) == attempts
