"""From a record with named fields to a document, alike for JSON lines, Parquet and data sets."""

from collections.abc import Mapping
from typing import Any

from pipeline.config import Columns
from pipeline.source.documents import Document, Fault, encodable
from pipeline.source.lines import text_fault


def to_document(
    record: Mapping[str, Any], columns: Columns, label: str, row: int, source: str
) -> Document | Fault:
    """The document in one record, or why there is none.

    `doc_id` is the record's id if that is a string with something in it, else `label/ROW`; `source` is for records that name none.
    The key `language` is read as it is called.
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
