"""JSON lines: one shard a file. Which key holds the text, the id, the address and the source is told by `columns`."""

import logging
from collections.abc import Iterator, Sequence

from pipeline.config import Columns, Jsonl
from pipeline.location import Place
from pipeline.source.documents import Document, Fault, Shard
from pipeline.source.files import Listed, describe, find_files, left_for_corpus, shard_name
from pipeline.source.lines import read_records
from pipeline.source.records import to_document

logger = logging.getLogger(__name__)

SUFFIXES = (".jsonl", ".jsonl.gz")


def plan(source: Jsonl, held_out: Sequence[Place] = ()) -> list[Shard]:
    """One shard per file, ordered by path. Files at or below a `held_out` path (the targets') are left out, with a warning.

    Raises:
        UserError: nothing is at the path, or no file of JSON lines, or targets hold them all.
    """
    root, files = find_files(source.path, SUFFIXES, "source.path", "JSON lines")
    return [
        _shard(root, name, files)
        for name in left_for_corpus(source.path, files, root, held_out, logger.warning)
    ]


def _shard(root: Place, name: str, files: Listed) -> Shard:
    entry = describe(root, name, files[name])
    return Shard(
        name=shard_name(name, SUFFIXES), kind="jsonl", root=root, key=entry.path, inputs=(entry,)
    )


def read(shard: Shard, columns: Columns) -> Iterator[Document | Fault]:
    """Every record of one file, in file order; see `read_file`."""
    return read_file(shard.root / shard.key, shard.key, columns)


def read_file(path: Place, label: str, columns: Columns) -> Iterator[Document | Fault]:
    """Every record of a file, with what could not be read as faults; `label` names the file in ids and faults."""
    source = label.removesuffix(".gz").removesuffix(".jsonl")
    for item in read_records(path, label):
        yield (
            item
            if isinstance(item, Fault)
            else to_document(item[1], columns, label, item[0], source)
        )
