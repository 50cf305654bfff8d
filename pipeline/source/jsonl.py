"""JSON lines: one shard per file."""

from collections.abc import Iterator, Sequence
from functools import partial

from pipeline.location import File, Place, file_below
from pipeline.source.config import JSONL_ENDINGS, Columns, Jsonl
from pipeline.source.documents import Document, Fault, Inventory, Shard
from pipeline.source.files import FoundFile, describe_file, find_files, shard_name, without_reserved
from pipeline.source.head import Head, head_of_lines
from pipeline.source.interface import Source
from pipeline.source.lines import read_records
from pipeline.source.records import RecordReader
from pipeline.source.unpack import COMPRESSIONS

JSONL_SUFFIXES = tuple(
    f"{ending}{compression}" for ending in JSONL_ENDINGS for compression in COMPRESSIONS
)


class JsonlSource(Source[Jsonl]):
    """A file of JSON lines, or all such files below a folder or URL."""

    def plan(self) -> Inventory:
        """Return one shard per file, ordered by path. Files that belong to targets are left out.

        Raises:
            UserError: There is nothing at the path, no JSON lines file, or targets have them all.
        """
        path, suffixes = self.section.path, jsonl_suffixes(self.section)
        found = find_files(path, suffixes, "source.path", "JSON lines")
        found = without_reserved(path, found, self.reservations.paths)
        shards = [_shard(found.root, file, suffixes) for file in found.files]
        return Inventory(shards, found.notes())

    def read(self, shard: Shard) -> Iterator[Document | Fault]:
        """Yield every record of one file, in the order of the file."""
        return self._read(shard, file_below(shard.root, shard.inputs[0].name))

    def _read(self, shard: Shard, file: File) -> Iterator[Document | Fault]:
        return read_json_lines(file, shard.key, self.section.columns, jsonl_suffixes(self.section))

    def choices(self) -> list[object]:
        """Return the names of the columns and the suffixes, if they are not the default ones."""
        columns, suffixes = self.section.columns, self.section.suffixes
        return [
            *([columns] if columns != Columns() else []),
            *([suffixes] if suffixes != JSONL_ENDINGS else []),
        ]

    def read_head(self, shard: Shard) -> Head:
        """Return the records in the first bytes of the file."""
        return head_of_lines(
            file_below(shard.root, shard.inputs[0].name),
            shard.inputs[0].bytes,
            partial(self._read, shard),
        )


def jsonl_suffixes(source: Jsonl) -> tuple[str, ...]:
    """Return the endings of the names of JSON lines files, plain and compressed."""
    return tuple(
        f"{suffix}{compression}" for suffix in source.suffixes for compression in COMPRESSIONS
    )


def _shard(root: Place, file: FoundFile, suffixes: Sequence[str]) -> Shard:
    entry = describe_file(root, file)
    name = shard_name(file.label, suffixes)
    return Shard(name=name, kind="jsonl", root=root, key=entry.path, inputs=(entry,))


def read_json_lines(
    path: File, label: str, columns: Columns, suffixes: Sequence[str] = JSONL_SUFFIXES
) -> Iterator[Document | Fault]:
    """Yield every record of a file, and a fault for each that cannot be read.

    `label` names the file in ids and faults. Without one of `suffixes` it is the documents'
    `source`, if they have none.
    """
    endings = [suffix for suffix in suffixes if label.endswith(suffix)]
    reader = RecordReader(columns, label, label.removesuffix(max(endings, key=len, default="")))
    for item in read_records(path, label):
        if isinstance(item, Fault):
            yield item
        else:
            row, record = item
            yield reader.document(record, row)
    yield from reader.notes()
