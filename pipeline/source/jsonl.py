"""JSON lines: one shard per file."""

import logging
from collections.abc import Iterator

from pipeline.location import Place
from pipeline.source.config import Columns, Jsonl
from pipeline.source.documents import Document, Fault, Shard
from pipeline.source.files import Listing, describe_file, find_files, shard_name, without_reserved
from pipeline.source.head import Head, head_of_json_lines
from pipeline.source.interface import Source
from pipeline.source.lines import read_records
from pipeline.source.records import to_document

logger = logging.getLogger(__name__)

JSONL_SUFFIXES = (".jsonl", ".jsonl.gz")


class JsonlSource(Source[Jsonl]):
    """A file of JSON lines, or all such files below a folder or URL."""

    def plan(self) -> list[Shard]:
        """Return one shard per file, ordered by path.

        Files that belong to targets are left out, with a warning.

        Raises:
            UserError: There is nothing at the path, no JSON lines file, or targets have them all.
        """
        path = self.section.path
        root, files = find_files(path, JSONL_SUFFIXES, "source.path", "JSON lines")
        kept = without_reserved(path, files, root, self.reservations.paths, logger.warning)
        return [_shard(root, name, kept) for name in kept]

    def read(self, shard: Shard) -> Iterator[Document | Fault]:
        """Yield every record of one file, in the order of the file."""
        return read_json_lines(shard.root / shard.key, shard.key, self.section.columns)

    def choices(self) -> list[object]:
        """Return the names of the columns, if they are not the default ones."""
        return [self.section.columns] if self.section.columns != Columns() else []

    def read_head(self, shard: Shard) -> Head:
        """Return the records in the first bytes of the file."""
        return head_of_json_lines(shard, self.section.columns.text)


def _shard(root: Place, name: str, files: Listing) -> Shard:
    entry = describe_file(root, name, files[name])
    name = shard_name(name, JSONL_SUFFIXES)
    return Shard(name=name, kind="jsonl", root=root, key=entry.path, inputs=(entry,))


def read_json_lines(path: Place, label: str, columns: Columns) -> Iterator[Document | Fault]:
    """Yield every record of a file, and a fault for each that cannot be read.

    `label` names the file in ids and faults.
    """
    source = label.removesuffix(".gz").removesuffix(".jsonl")
    for item in read_records(path, label):
        if isinstance(item, Fault):
            yield item
        else:
            row, record = item
            yield to_document(record, columns, label, row, source)
