"""Check that the records of a corpus have the field that holds the text."""

from collections.abc import Sequence
from typing import Any

from data_catalog.errors import UserError
from pipeline.source.config import Jsonl
from pipeline.source.documents import Fault, Shard
from pipeline.source.interface import Source

_MAXIMUM_FILES = 32  # whose heads are read if none before has a text


def check_text_field(source: Source[Any], shards: Sequence[Shard]) -> None:
    """Read the heads of the largest files of JSON lines, up to the first text.

    Other kinds of source have no such field, or a schema that names it.

    Raises:
        UserError: There are records, and most of them have no string as `source.columns.text`.
    """
    if not isinstance(source.section, Jsonl):
        return
    lost: list[Fault] = []
    for shard in sorted(shards, key=source.size, reverse=True)[:_MAXIMUM_FILES]:
        head = source.read_head(shard)
        if head.texts:
            return
        lost += [fault for fault in head.faults if fault.counted]
    without = [fault for fault in lost if fault.reason == "no_text"]
    if 2 * len(without) > len(lost):
        raise UserError(
            f"source.columns.text {source.section.columns.text}: none of the first {len(lost)} "
            f"records has a text. In {without[0].file}, {without[0].detail}. Name the field that "
            "holds the text."
        )
