"""Checksums of the files of a run, and of a checkpoint, in their `checksums.json`.

An unfinished run has the checksum of its record only, since its results grow. Runs and checkpoints
of earlier versions of clustermix have none.
"""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from pydantic import BaseModel

from data_catalog.errors import UserError
from data_catalog.format.damage import VERIFY_REMEDY
from data_catalog.format.manifest import (
    FileIdentity,
    damaged_files,
    describe_files,
    refuse_damaged,
    write_json,
)
from data_catalog.format.records import Record, read_record

CHECKSUMS = "checksums.json"
_RECORD = "config.json"
_RESULTS = ("metrics.jsonl", "weights.parquet", "usage.parquet", "weights.json")
MODELS = ("pretrained", "model")
# The files that pages and tables show. Each may be missing, but for the first.
RUN_FILES = (
    "config.json",
    "metrics.jsonl",
    "weights.parquet",
    "usage.parquet",
    "weights.json",
    "accuracy.json",
    "fault.json",
)


class Checksums(Record):
    """The contents of `checksums.json`."""

    files: dict[str, FileIdentity]
    """Size and SHA-256 of each file, keyed by its path below the folder."""


def write_checksums(folder: Path, paths: Iterable[Path]) -> None:
    """Write the checksums of `paths` into `folder`, which they are below."""
    write_json(folder / CHECKSUMS, Checksums(files=describe_files(folder, list(paths))))


def write_run_record(run: Path, record: BaseModel) -> None:
    """Write the record of a run that begins or resumes, and its checksum."""
    (run / CHECKSUMS).unlink(missing_ok=True)  # a killed process leaves none that differs
    write_json(run / _RECORD, record)
    write_checksums(run, [run / _RECORD])


def write_run_checksums(run: Path) -> None:
    """Write the checksums of a finished run's record, results and models."""
    models = (path for name in MODELS for path in (run / name).rglob("*"))
    paths = (*(run / name for name in (_RECORD, *_RESULTS)), *models)
    write_checksums(run, (path for path in paths if path.is_file()))


def run_faults(run: Path, beginnings: Sequence[str] = ("",)) -> dict[str, str]:
    """Return the fault of each damaged file of a run, by name.

    The results of an unfinished run are compared with its newest checkpoint: the metrics cannot be
    shorter than they were then, and there must be weights.

    Args:
        run: The run's folder.
        beginnings: Beginnings of the paths below it, such as `metrics.jsonl` or `model/`.
    """
    files: dict[str, FileIdentity] = {}
    if (run / CHECKSUMS).is_file():
        try:
            files = read_record(Checksums, run / CHECKSUMS, VERIFY_REMEDY).files
        except UserError:
            return {CHECKSUMS: "cannot be read"}
    wanted = {name: file for name, file in files.items() if name.startswith(tuple(beginnings))}
    found = {} if files.keys() & set(_RESULTS) else _unfinished_faults(run)
    short = {name: fault for name, fault in found.items() if name.startswith(tuple(beginnings))}
    return {**damaged_files(run, wanted), **short}


def _unfinished_faults(run: Path) -> dict[str, str]:
    newest = max((run / "checkpoints").glob("[0-9]*/state.json"), default=None)
    try:
        expected = int(json.loads(newest.read_bytes())["metrics_bytes"]) if newest else 0
    except Exception:  # a damaged checkpoint is another fault
        return {}
    metrics, weights = run / _RESULTS[0], run / _RESULTS[1]
    faults = {}
    if expected and not metrics.is_file():
        faults[metrics.name] = "missing"
    elif expected and (size := metrics.stat().st_size) < expected:
        faults[metrics.name] = f"{size} bytes, expected at least {expected}"
    if newest and not weights.is_file():
        faults[weights.name] = "missing"
    return faults


def require_run_files(run: Path, beginnings: Sequence[str]) -> None:
    """Check the files of a run that a command uses. For the arguments see `run_faults`.

    Raises:
        DamagedFileError: A file differs from its checksum.
    """
    refuse_damaged(run, run_faults(run, beginnings))
