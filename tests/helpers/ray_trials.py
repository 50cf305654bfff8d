"""Stages on a Ray cluster of this machine.

They need a process of their own, because Ray cannot send functions whose annotations are checked at
every call, as they are in pytest's process. It must import this module by its name.
"""

import json
import logging
import os
import signal
from pathlib import Path
from typing import Any

from data_catalog.errors import UserError
from data_catalog.format.accounts import Account, Tally
from data_catalog.format.manifest import read_manifest
from data_catalog.settings import parse
from pipeline.config import Build
from pipeline.engine.cluster import connected
from pipeline.engine.config import Cluster
from pipeline.parts import Part, make_part
from pipeline.run import build
from tests.helpers.tiny_corpus import write_corpus


def make_rows(folder: Path, rows: int) -> Part:
    def make(temporary: Path) -> Account:
        (temporary / "rows").write_text(str(rows), encoding="utf-8")
        logging.getLogger("pipeline").warning("%d rows", rows)
        tally = Tally(rows=rows, characters=rows)
        return Account(read=tally, kept=tally)

    return make_part(folder, f"rows-{rows}", make)


def fail_once(folder: Path, mark: Path) -> Part:
    if not mark.exists():
        mark.touch()
        raise ConnectionError("for now")
    return make_rows(folder, 1)


def die_once(folder: Path, mark: Path) -> Part:
    if not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return make_rows(folder, 1)


def refuse(folder: Path, mark: Path) -> Part:
    mark.write_text(mark.read_text() + "x" if mark.exists() else "x")
    raise UserError(f"{folder.name}: no such language")


class Messages(logging.Handler):
    """The messages of warnings."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())


def print_outcomes(root: str) -> None:
    """Run the trials in a folder and print their outcomes as JSON."""
    print(json.dumps(outcomes(Path(root))))


def outcomes(root: Path) -> dict[str, Any]:
    settings = write_corpus(root)
    plain = build(parse(Build, {**settings, "out": str(root / "plain")}, "plain"))
    config = parse(Build, {**settings, "out": str(root / "made")}, "made")
    logging.getLogger().addHandler(messages := Messages())
    finished: list[str] = []
    with connected(Cluster(workers=2), root / "work", config, config.embed) as each:
        rows = [(root / f"part-{rows}", rows) for rows in (3, 1, 2)]
        ordered = each("rows", make_rows, rows, lambda part: finished.append(part.name))
        again = [
            each(
                "again", function, [(root / function.__name__, root / f"{function.__name__}.mark")]
            )
            for function in (fail_once, die_once)
        ]
        try:
            each("refused", refuse, [(root / "refused", root / "refused.mark")])
        except UserError as error:
            refusal = str(error)
        made = build(config, each)
    return {
        "rows": [part.account.kept.rows for part in ordered],
        "finished": sorted(finished),
        "warnings": messages.texts,
        "again": [part.account.kept.rows for parts in again for part in parts],
        "refusal": refusal,
        "attempts": len((root / "refused.mark").read_text()),
        "fingerprints": [read_manifest(folder).fingerprint for folder in (plain, made)],
    }
