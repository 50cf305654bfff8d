"""Records with named fields as documents, alike for JSON lines, Parquet and datasets."""

from collections.abc import Mapping
from typing import Any

from pipeline.source.config import Columns
from pipeline.source.documents import Document, Fault, encodable
from pipeline.source.lines import text_fault


def to_document(
    record: Mapping[str, Any], columns: Columns, label: str, row: int, source: str
) -> Document | Fault:
    """Return the document in one record, or the reason why there is none.

    The key `language` has a fixed name.

    Args:
        record: Fields by name.
        columns: Names of the fields.
        label: Name of the file. `doc_id` is `label/ROW` for a record without an id of its own.
        row: Row of the record in the file, from 0.
        source: Value of `source` for records that have none.
    """
    text = record.get(columns.text)
    if fault := text_fault(text, label, row, columns.text):
        return fault
    return Document(
        doc_id=encodable(record.get(columns.id)) or f"{label}/{row}",
        text=str(text),
        url=encodable(record.get(columns.url)),
        source=encodable(record.get(columns.source)) or source,
        language=encodable(record.get("language")),
    )
