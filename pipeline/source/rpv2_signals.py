"""Quality signals and shipped duplicates of one RedPajama-V2 file, by row of the document."""

from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from math import isfinite
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.location import File, is_file_fault
from pipeline.source.documents import Fault, encodable
from pipeline.source.lines import read_records

_BUCKET_SIGNALS = {"head": 0.0, "middle": 1.0, "tail": 2.0}
_RECORD_SIGNALS = {  # signal -> key of a document's record, for files without a signals file
    "ccnet_length": "length",
    "ccnet_original_length": "original_length",
    "ccnet_nlines": "nlines",
    "ccnet_original_nlines": "original_nlines",
    "ccnet_language_score": "language_score",
    "ccnet_perplexity": "perplexity",
}


def record_signals(record: dict[str, Any]) -> dict[str, float]:
    """Return the signals that a document's own record has under other names."""
    signals = {
        name: value
        for name, key in _RECORD_SIGNALS.items()
        if (value := _number(record.get(key))) is not None
    }
    if isinstance(bucket := record.get("bucket"), str) and bucket in _BUCKET_SIGNALS:
        signals["ccnet_bucket"] = _BUCKET_SIGNALS[bucket]
    return signals


def _number(value: object) -> float | None:
    if not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:  # a JSON integer can have thousands of digits
        return None
    return number if isfinite(number) else None


@dataclass
class QualitySignals:
    """Scores of one file by row, as doubles: about 500 bytes per document."""

    rows: dict[int, tuple[tuple[str, ...], "array[float]"]] = field(default_factory=dict)
    """Names and scores by row."""
    names: dict[tuple[str, ...], tuple[str, ...]] = field(default_factory=dict)
    """One copy of each tuple of names. Most rows have the same."""

    def take(self, row: int) -> dict[str, float]:
        """Remove and return the scores of a row by name. Empty if it has none."""
        names, scores = self.rows.pop(row, ((), array("d")))
        return dict(zip(names, scores, strict=True))

    def fill(self, path: File, label: str, key: str) -> Iterator[Fault]:
        """Read a signals file. Yield its faults, none of which loses a document."""
        foreign = 0
        for item in read_records(path, label):
            if isinstance(item, Fault):
                yield Fault(label, item.row, f"signals_{item.reason}", item.detail, counted=False)
                continue
            row, signals = _row(item[1].get("id"), key), item[1].get("quality_signals")
            if row is None or row in self.rows or not isinstance(signals, dict):
                foreign += 1
                continue
            means = {
                name: mean for name, spans in signals.items() if (mean := _mean(spans)) is not None
            }
            names = tuple(encodable(name) or "" for name in means)
            self.rows[row] = (self.names.setdefault(names, names), array("d", means.values()))
        if foreign:
            detail = f"{foreign} lines repeat a document or name none of this file"
            yield Fault(label, None, "signals_unmatched", detail, counted=False, records=foreign)


def _mean(spans: object) -> float | None:
    """Return the mean of the scores of `[[start, end, score], ...]`, or None if there is none.

    A signal of the document has one span, a signal of its lines has one per line.
    """
    if not isinstance(spans, list):
        return None
    scores = [
        score
        for span in spans
        if isinstance(span, list) and len(span) == 3 and (score := _number(span[2])) is not None
    ]
    return sum(scores) / len(scores) if scores else None


def _row(doc_id: object, key: str) -> int | None:
    prefix, _, row = doc_id.rpartition("/") if isinstance(doc_id, str) else ("", "", "")
    return int(row) if prefix == f"{key}.json.gz" and row.isdecimal() and len(row) < 19 else None


def read_duplicates(path: File, label: str, key: str) -> set[int] | Fault:
    """Return the rows of the file `key` that the corpus lists as copies, or the list's fault.

    Raises:
        OSError: The network failed. Reading again may help.
    """
    rows: set[int] = set()
    try:
        with path.open("rb") as raw, pq.ParquetFile(raw) as file:
            if "doc_id" not in file.schema_arrow.names:
                return Fault(
                    label, None, "duplicates_unreadable", "no column doc_id", counted=False
                )
            for batch in file.iter_batches(columns=["doc_id"]):
                rows.update(
                    row
                    for doc_id in batch["doc_id"].to_pylist()
                    if (row := _row(doc_id, key)) is not None
                )
    except (OSError, ValueError, pa.ArrowException) as error:
        if isinstance(error, OSError) and not is_file_fault(error, path):
            raise
        detail = (str(error) or type(error).__name__).splitlines()[0][:200]
        return Fault(label, None, "duplicates_unreadable", detail, counted=False)
    return rows
