"""Reading of run folders.

A damaged file is left out and described by a sentence on the page. It never prevents the page.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data_catalog.errors import UserError
from data_catalog.format.run_files import RUN_FILES, run_faults
from data_catalog.format.run_record import read_run_record
from flows.pages.run.run_folder import RunFolder, Usage, WeightLog, number

logger = logging.getLogger(__name__)

# Numbers that a record of metrics.jsonl must have. The loss of an `eval` may be null, which stands
# for a loss that is not finite.
REQUIRED_KEYS = {
    "train": ("step", "tokens", "seconds"),
    "eval": ("step", "tokens"),
    "update": ("step", "stage"),
    "bounds": ("step", "moved"),
    "final": ("steps", "tokens", "seconds"),
}


def read_runs(folders: Sequence[Path]) -> list[RunFolder]:
    """Read run folders.

    Args:
        folders: Folders of finished or unfinished runs.

    Raises:
        UserError: No folder was given, or a folder contains no run.
    """
    if not folders:
        raise UserError("runs: found none. Expected at least one run folder, for example runs/dga.")
    labels = _labels([folder.absolute() for folder in folders])
    runs = [read_run(folder, label) for folder, label in zip(folders, labels, strict=True)]
    for run in runs:
        for sentence in run.damage:
            logger.warning("%s: %s", run.folder, sentence)
    return runs


def _labels(folders: Sequence[Path]) -> list[str]:
    """Return the shortest distinct path endings. The same folder twice gets numbers."""
    for parts in range(1, max(len(folder.parts) for folder in folders) + 1):
        labels = ["/".join(folder.parts[-parts:]) for folder in folders]
        if len(set(labels)) == len(labels):
            return labels
    return [f"{folder.name} ({i + 1})" for i, folder in enumerate(folders)]


def read_run(folder: Path, label: str) -> RunFolder:
    """Read one run folder.

    Raises:
        UserError: The folder contains no run, or its `config.json` is damaged.
    """
    damage = [f"{name} is damaged ({text})" for name, text in run_faults(folder, RUN_FILES).items()]
    record = read_run_record(folder)
    records, unreadable = _read_metrics(folder / "metrics.jsonl", damage)
    if unreadable:
        damage.append(
            f"{unreadable} line{'s' if unreadable > 1 else ''} of metrics.jsonl could not be read "
            f"and {'are' if unreadable > 1 else 'is'} not shown"
        )
    accuracy = _read_object(folder / "accuracy.json", damage).get("tasks")
    return RunFolder(
        folder,
        label,
        record.model_dump(mode="json"),
        _read_weights(folder / "weights.parquet", len(record.basis), damage),
        _read_usage(folder / "usage.parquet", damage),
        records,
        {
            name: w
            for name, w in _read_object(folder / "weights.json", damage).items()
            if number({"w": w}, "w") is not None
        },
        {str(task): row for task, row in accuracy.items() if isinstance(row, dict)}
        if isinstance(accuracy, dict)
        else {},
        _read_object(folder / "fault.json", damage) or None,
        tuple(damage),
    )


def _read_object(path: Path, damage: list[str]) -> dict[str, Any]:
    """Return the JSON object in a file, or an empty one if the file is missing or damaged."""
    try:
        content = json.loads(path.read_bytes()) if path.is_file() else {}
    except (OSError, ValueError, RecursionError) as error:
        damage.append(f"{path.name} could not be read ({_first_line(error)})")
        return {}
    if not isinstance(content, dict):
        damage.append(
            f"{path.name} could not be read (expected an object, found {type(content).__name__})"
        )
        return {}
    return content


def _read_metrics(path: Path, damage: list[str]) -> tuple[tuple[Mapping[str, Any], ...], int]:
    """Return the records and the number of invalid lines.

    An invalid last line without a newline is not counted, because it may still be being written.
    """
    try:
        text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    except OSError as error:
        damage.append(f"metrics.jsonl could not be read ({_first_line(error)})")
        return (), 0
    *lines, last = text.split("\n")
    parsed = [_record(line) for line in lines if line.strip()]
    records = [record for record in (*parsed, _record(last)) if record is not None]
    return tuple(records), parsed.count(None)


def _record(line: str) -> Mapping[str, Any] | None:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(record, dict) or not isinstance(record.get("kind"), str):
        return None
    if any(number(record, key) is None for key in REQUIRED_KEYS.get(record["kind"], ())):
        return None
    return (
        None
        if record["kind"] == "eval"
        and not ("loss" in record and isinstance(record.get("set"), str))
        else record
    )


def _read_table(path: Path, columns: list[str], damage: list[str]) -> pa.Table | None:
    if not path.is_file():
        return None
    try:
        return pq.read_table(path, columns=columns)
    except (pa.ArrowException, OSError) as error:
        damage.append(
            f"{path.name} could not be read ({_first_line(error)}). Expected a Parquet file with "
            f"the columns {', '.join(columns)}"
        )
        return None


def _read_weights(path: Path, basis: int, damage: list[str]) -> WeightLog | None:
    table = _read_table(path, ["first_sequence", "alpha", "sampling"], damage)
    if table is None or not table.num_rows:
        return None
    try:
        first = np.array(table["first_sequence"].to_pylist(), np.int64)
        alpha, sampling = (
            np.array(table[name].to_pylist(), np.float64) for name in ("alpha", "sampling")
        )
    except (TypeError, ValueError, OverflowError) as error:
        damage.append(f"weights.parquet could not be read ({_first_line(error)})")
        return None
    if sampling.shape != (len(first), basis) or alpha.shape != sampling.shape:
        width = " x ".join(map(str, sampling.shape[1:]))
        damage.append(
            f"weights.parquet does not match config.json: found {width} weights per row, expected "
            f"{basis}, the size of the basis"
        )
        return None
    if not (
        np.isfinite(alpha).all()
        and np.isfinite(sampling).all()
        and (sampling >= 0).all()
        and (np.diff(first, prepend=0) >= 0).all()
    ):
        damage.append(
            "weights.parquet is not shown: its weights are not finite, negative, or not in the "
            "order of the run"
        )
        return None
    return WeightLog(first, alpha, sampling)


def _read_usage(path: Path, damage: list[str]) -> Usage | None:
    table = _read_table(path, ["leaf", "drawn_sequences", "sequences"], damage)
    if table is None:
        return None
    try:
        columns = [np.array(table[name].to_pylist(), np.int64) for name in table.column_names]
    except (TypeError, ValueError, OverflowError) as error:
        damage.append(f"usage.parquet could not be read ({_first_line(error)})")
        return None
    if any((column < 0).any() for column in columns):
        damage.append("usage.parquet is not shown: it has negative numbers")
        return None
    return Usage(*columns)


def _first_line(error: Exception) -> str:
    """Return the first line of an error message of a library."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
