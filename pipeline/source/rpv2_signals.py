"""Quality signals and shipped duplicates of one RedPajama-V2 file, by the row of the document that they belong to."""

from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from math import isfinite
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.location import Place, is_file_fault
from pipeline.source.documents import Fault, encodable
from pipeline.source.lines import read_records

BUCKETS = {"head": 0.0, "middle": 1.0, "tail": 2.0}
_COPIED = {  # signals that the document record itself has, for files without a signals file
    "ccnet_length": "length",
    "ccnet_original_length": "original_length",
    "ccnet_nlines": "nlines",
    "ccnet_original_nlines": "original_nlines",
    "ccnet_language_score": "language_score",
    "ccnet_perplexity": "perplexity",
}


def own_signals(record: dict[str, Any]) -> dict[str, float]:
    """The signals that a document's own record holds under other names."""
    found = {
        name: value
        for name, key in _COPIED.items()
        if (value := _number(record.get(key))) is not None
    }
    if isinstance(bucket := record.get("bucket"), str) and bucket in BUCKETS:
        found["ccnet_bucket"] = BUCKETS[bucket]
    return found


def _number(value: object) -> float | None:
    if not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:  # a JSON integer can have thousands of digits
        return None
    return number if isfinite(number) else None


@dataclass
class Signals:
    """Scores of one file by row, held as doubles: some 500 bytes a document."""

    rows: dict[int, tuple[tuple[str, ...], "array[float]"]] = field(default_factory=dict)
    names: dict[tuple[str, ...], tuple[str, ...]] = field(
        default_factory=dict
    )  # most rows have the same: keep one copy

    def of(self, row: int) -> dict[str, float]:
        names, scores = self.rows.pop(row, ((), array("d")))
        return dict(zip(names, scores, strict=True))

    def fill(self, path: Place, label: str, key: str) -> Iterator[Fault]:
        """Read a signals file; what it lacks or has too much of is a fault that loses no document."""
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
            yield Fault(
                label,
                None,
                "signals_unmatched",
                f"{foreign} lines repeat a document or name none of this file",
                counted=False,
            )


def _mean(spans: object) -> float | None:
    """Mean of the scores of `[[start, end, score], ...]`: of one span for a document's signal, of its lines for a line's."""
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


def read_duplicates(path: Place, label: str, key: str) -> set[int] | Fault:
    """Rows of the file `key` that the corpus lists as copies, or the fault of the list.

    Raises:
        OSError: the network failed, not the file: read again.
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
        return Fault(
            label,
            None,
            "duplicates_unreadable",
            (str(error) or type(error).__name__).splitlines()[0][:200],
            counted=False,
        )
    return rows
