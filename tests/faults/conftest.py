"""Count the trials of the reliability suite and write their table, docs/reliability.md.

Each test of this folder is one trial. The mark `faults(kind, tried=..., expected=...)` of its
module names the row of the table that it counts for.
"""

import os
import platform
import time
from collections import Counter
from collections.abc import Generator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.helpers.faults import Lost, Wrong

_HEADER = """\
# Reliability

What happens when things go wrong: a signal, a full disk, a damaged file, a hostile query. Each row
counts trials, and each trial has one expected outcome.

- **Survived**: the command did what is expected.
- **Lost**: data that existed before is gone, or a document is missing without being counted.
- **Wrong**: a command reported success, and its result is not right.
- **Other**: anything else that is not expected, such as a traceback or a command that did not end.

"""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--reliability", type=Path, help="write the table of trials to this file")


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(_Table(config), "reliability")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add the row and the outcome of a trial to its report, which reaches the main process."""
    report = yield
    mark = item.get_closest_marker("faults")
    if mark and (report.when == "call" or report.outcome != "passed"):
        outcome = "survived" if report.passed else "skipped" if report.skipped else "other"
        if report.failed and call.excinfo and call.excinfo.errisinstance((Lost, Wrong)):
            outcome = "lost" if call.excinfo.errisinstance(Lost) else "wrong"
        [kind] = mark.args
        trial = (kind, mark.kwargs["tried"], mark.kwargs["expected"], outcome)
        report.user_properties.append(("trial", trial))
    return report


@pytest.fixture(autouse=True)
def passable_folders(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Commands of other users pass through pytest's own folders.

    Each start of pytest makes them private, also that of another pytest on this machine.
    """
    base = tmp_path_factory.getbasetemp()
    for folder in (base, *base.parents):
        if folder.stat().st_uid == os.getuid() and not folder.stat().st_mode & 0o001:
            folder.chmod(0o711)


class _Table:
    """Collects the outcomes of all trials in the main process."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._started = time.monotonic()
        self._kinds: dict[str, tuple[str, str]] = {}
        self._outcomes: Counter[tuple[str, str]] = Counter()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        for name, value in report.user_properties:
            if name == "trial":
                kind, tried, expected, outcome = value
                self._kinds[kind] = (tried, expected)
                self._outcomes[kind, outcome] += 1

    def pytest_sessionfinish(self) -> None:
        path = self._config.getoption("--reliability")
        if path and self._kinds and not hasattr(self._config, "workerinput"):
            path.write_text(self._page())

    def _page(self) -> str:
        columns = ("survived", "lost", "wrong", "other")
        rows = [["Kind", "Tried", *(name.capitalize() for name in columns), "Not run here"]]
        for kind in sorted(self._kinds):
            counts = [self._outcomes[kind, name] for name in columns]
            skipped = self._outcomes[kind, "skipped"]
            rows.append([kind, *(f"{count:,}" for count in (sum(counts), *counts, skipped))])
        rows.insert(1, ["---", *["---:"] * (len(rows[0]) - 1)])
        table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
        sections = "\n".join(
            f"## {kind}\n\n**Tried:** {tried}\n\n**Expected:** {expected}\n"
            for kind, (tried, expected) in sorted(self._kinds.items())
        )
        made = (
            f"Made by `make faults` on {datetime.now(UTC):%Y-%m-%d}, Python "
            f"{platform.python_version()}, {platform.system()}, {os.cpu_count()} cores, in "
            f"{(time.monotonic() - self._started) / 60:.0f} minutes."
        )
        return f"{_HEADER}{made}\n\n{table}\n\n{sections}"
