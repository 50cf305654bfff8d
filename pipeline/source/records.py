"""Records with named fields as documents, alike for JSON lines, Parquet and datasets."""

from collections import Counter
from collections.abc import Iterator, Mapping
from decimal import Decimal
from math import isfinite
from typing import Any
from uuid import UUID

from pipeline.source.config import Columns
from pipeline.source.documents import Document, Fault, encodable
from pipeline.source.lines import text_fault

_OPTIONAL = ("id", "url", "source")  # fields of `Columns` that a record may lack


class RecordReader:
    """Makes documents of the records of one file, and counts the fields that it cannot use."""

    def __init__(self, columns: Columns, label: str, source: str) -> None:
        """Read the records of one file.

        Args:
            columns: Names of the fields.
            label: Name of the file. `doc_id` is `label/ROW` for a record without a usable id.
            source: Value of `source` for records that have none.
        """
        self._columns, self._label, self._source = columns, label, source
        self._notes: Counter[tuple[str, str]] = Counter()
        self._documents = 0

    def document(self, record: Mapping[str, Any], row: int) -> Document | Fault:
        """Return the document in one record, or the reason why there is none.

        An id or a source that is a number is used as text. The key `language` has a fixed name.

        Args:
            record: Fields by name.
            row: Row of the record in the file, from 0.
        """
        columns = self._columns
        text = record.get(columns.text)
        if fault := text_fault(text, self._label, row, columns.text):
            return fault
        self._documents += 1
        return Document(
            doc_id=self._field(record, "id", columns.id) or f"{self._label}/{row}",
            text=str(text),
            url=self._field(record, "url", columns.url),
            source=self._field(record, "source", columns.source) or self._source,
            language=self._field(record, "language", "language"),
        )

    def _field(self, record: Mapping[str, Any], field: str, key: str) -> str | None:
        value = record.get(key)
        if value is None or value == "":
            is_named = field == "id" or key != field  # by the config
            if is_named and field in _OPTIONAL:
                self._notes[f"no_{field}", ""] += 1
            return None
        text = as_text(value) if field in {"id", "source"} else encodable(value)
        if text is None:
            self._notes[f"bad_{field}", type(value).__name__] += 1
        return text

    def notes(self) -> Iterator[Fault]:
        """Yield a note per kind of field that was missing or could not be used."""
        for (reason, kind), number in sorted(self._notes.items()):
            key = getattr(self._columns, reason.partition("_")[2], "language")
            state = f"{key} is {kind}, expected a string" if kind else f"they have no {key}"
            named = "; they are named by file and row" if reason.endswith("_id") else ""
            detail = f"{number} of {self._documents} documents: {state}{named}"
            yield Fault(self._label, None, reason, detail, counted=False, records=number)


def as_text(value: object) -> str | None:
    """Return a string, or a number or UUID as the text that it is written as. Else None.

    A float that is a whole number is written without a fraction, since tables with missing values
    hold whole numbers as floats.
    """
    match value:
        case str():
            return encodable(value)
        case int() if not isinstance(value, bool):
            return _digits(value)
        case float() if isfinite(value):
            return str(int(value)) if value.is_integer() and abs(value) < 2**53 else repr(value)
        case Decimal():
            return format(value.normalize(), "f") if value.is_finite() else None
        case UUID():
            return str(value)
    return None


def _digits(value: int) -> str | None:
    try:
        return str(value)
    except ValueError:  # Python refuses to write more than 4,300 digits
        return None
