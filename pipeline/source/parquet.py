"""Parquet files: one shard per file. Large files are split into several, between row groups."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data_catalog.errors import UserError
from pipeline.location import Place, is_file_fault
from pipeline.source.config import Columns, Parquet
from pipeline.source.documents import Document, Fault, Shard, encodable
from pipeline.source.files import Listing, describe_file, find_files, shard_name, without_reserved
from pipeline.source.head import HEAD_DOCUMENTS, Head, head_of_documents
from pipeline.source.interface import Source
from pipeline.source.lines import TEXT_BYTES
from pipeline.source.records import to_document

logger = logging.getLogger(__name__)

PARQUET_SUFFIXES = (".parquet",)
# A larger file is split into shards of about this size, of uncompressed columns.
SPLIT_BYTES = 512 * 2**20
_BATCH_ROWS = 1_024
_BATCH_BYTES = 32 * 2**20
_BUFFER_BYTES = 2**20  # pages are streamed: a row group is never in memory as a whole


class ParquetSource(Source[Parquet]):
    """A Parquet file, or all such files below a folder or URL."""

    def plan(self) -> list[Shard]:
        """Return one shard per file, or per `SPLIT_BYTES` of its row groups, ordered by path.

        Files that belong to targets are left out, with a warning.

        Raises:
            UserError: There is nothing at the path, no Parquet file, targets have them all, or
                the first file has no text column.
        """
        path = self.section.path
        root, files = find_files(path, PARQUET_SUFFIXES, "source.path", "Parquet")
        kept = without_reserved(path, files, root, self.reservations.paths, logger.warning)
        check_columns(root / next(iter(kept)), self.section.columns, "source.columns.text")
        return [shard for name in kept for shard in _shards(root, name, kept)]

    def read(self, shard: Shard) -> Iterator[Document | Fault]:
        """Yield every record of the shard's row groups, in the order of the file."""
        columns = self.section.columns
        return read_parquet(shard.root / shard.key, shard.key, columns, shard.piece)

    def choices(self) -> list[object]:
        """Return the names of the columns, if they are not the default ones."""
        return [self.section.columns] if self.section.columns != Columns() else []

    def size(self, shard: Shard) -> float:
        """Return the file's bytes, times the number of row groups if the file is split."""
        first, end = shard.piece or (0, 1)
        return super().size(shard) * (end - first)

    def read_head(self, shard: Shard) -> Head:
        """Return the first documents, with the exact number of rows from the file's footer."""
        rows = _count_rows(shard)
        head = head_of_documents(self.read(shard), HEAD_DOCUMENTS)
        share = min(len(head.texts) / max(rows, 1), 1.0)
        return Head(head.texts, head.languages, rows, share, counted=True)


def check_columns(path: Place, columns: Columns, key: str) -> None:
    """Check that a file has the text column.

    A broken file passes: the stage that reads it records a fault.

    Raises:
        UserError: There is no such column. `key` is the config key that names it.
    """
    try:
        with _open(path) as file:
            names = file.schema_arrow.names
    except (OSError, pa.ArrowException):
        return
    if columns.text not in names:
        raise UserError(
            f'{key}: {path} has no column "{columns.text}". '
            f"Its columns are {', '.join(names) or 'none'}. Name the one that has the text."
        )


def _shards(root: Place, name: str, files: Listing) -> list[Shard]:
    entry = describe_file(root, name, files[name])
    shard = Shard(
        name=shard_name(name, PARQUET_SUFFIXES),
        kind="parquet",
        root=root,
        key=entry.path,
        inputs=(entry,),
    )
    if entry.bytes <= SPLIT_BYTES:
        return [shard]
    pieces = _pieces(root / name)
    if len(pieces) < 2:
        return [shard]
    return [
        shard.model_copy(update={"name": f"{shard.name}.{i:04d}", "piece": piece})
        for i, piece in enumerate(pieces)
    ]


def _pieces(path: Place) -> list[tuple[int, int]]:
    """Return runs `[first, end)` of row groups of about `SPLIT_BYTES` each, before compression.

    Return none if the file cannot be read.
    """
    try:
        with _open(path) as file:
            sizes = [
                file.metadata.row_group(group).total_byte_size
                for group in range(file.metadata.num_row_groups)
            ]
    except (OSError, pa.ArrowException):
        return []
    pieces, start, total = [], 0, 0
    for group, size in enumerate(sizes):
        total += size
        if total >= SPLIT_BYTES or group == len(sizes) - 1:
            pieces.append((start, group + 1))
            start, total = group + 1, 0
    return pieces


def _count_rows(shard: Shard) -> int:
    """Return the rows of the shard's row groups, or 0 if the file cannot be read."""
    try:
        with (shard.root / shard.key).open("rb") as raw, pq.ParquetFile(raw) as file:
            groups = range(*shard.piece) if shard.piece else range(file.metadata.num_row_groups)
            return sum(file.metadata.row_group(group).num_rows for group in groups)
    except (OSError, pa.ArrowException):
        return 0


@contextmanager
def _open(path: Place) -> Iterator[pq.ParquetFile]:
    options = {
        "buffer_size": _BUFFER_BYTES,
        "pre_buffer": False,
        "page_checksum_verification": True,  # of pages that have a checksum
    }
    if isinstance(path, Path):
        with pq.ParquetFile(str(path), **options) as file:
            yield file
    else:
        with path.open("rb") as raw, pq.ParquetFile(raw, **options) as file:
            yield file


def read_parquet(
    path: Place, label: str, columns: Columns, row_groups: tuple[int, int] | None = None
) -> Iterator[Document | Fault]:
    """Yield every record of a file, or of its row groups `[first, end)`.

    The row of a record is its place in the whole file. What can be read of a broken file comes
    before its fault, `bad_parquet`. Memory holds a batch of about 32 MB, or one row if that is
    larger, and a page of each column. A text of more than `TEXT_BYTES` is a fault, `too_long`, and
    only Arrow holds it: about four times its size.

    Args:
        path: The file.
        label: Name of the file in ids and faults.
        columns: Names of the columns.
        row_groups: The row groups to read, or None for all.

    Raises:
        OSError: The network failed. Reading again may help.
    """
    source = label.removesuffix(".parquet")
    row = 0
    try:
        with _open(path) as file:
            groups = range(*row_groups) if row_groups else range(file.metadata.num_row_groups)
            row = sum(file.metadata.row_group(group).num_rows for group in range(groups.start))
            names = file.schema_arrow.names
            if columns.text not in names:
                detail = f"no column {columns.text}; there: {', '.join(names)}"[:200]
                yield Fault(label, None, "no_text", detail)
                return
            wanted = (columns.text, columns.id, columns.url, columns.source, "language")
            read = [name for name in dict.fromkeys(wanted) if name in names]
            for group in groups:
                rows = _batch_rows(file, group)
                for batch in file.iter_batches(rows, row_groups=[group], columns=read):
                    for record in _rows(batch, columns.text):
                        yield (
                            to_document(record, columns, label, row, source)
                            if isinstance(record, dict)
                            else Fault(label, row, *record)
                        )
                        row += 1
    except (OSError, pa.ArrowException) as error:
        if isinstance(error, OSError) and not is_file_fault(error, path):
            raise
        detail = f"after row {row - 1}: {encodable(str(error).partition(chr(10))[0])}"[:200]
        yield Fault(label, None, "bad_parquet", detail)


def _batch_rows(file: pq.ParquetFile, group: int) -> int:
    """Return the number of rows that make about `_BATCH_BYTES`, at least 1."""
    metadata = file.metadata.row_group(group)
    return max(
        1, min(_BATCH_ROWS, _BATCH_BYTES * metadata.num_rows // max(1, metadata.total_byte_size))
    )


def _rows(batch: pa.RecordBatch, text: str) -> Iterator[dict[str, Any] | tuple[str, str]]:
    """Yield each row as a mapping, or as `(reason, detail)` if its text cannot be a document.

    The text is too long, or it is not UTF-8: writers of Parquet files need not check that.
    """
    column = batch.column(text)
    if not isinstance(column, pa.StringArray | pa.LargeStringArray):
        yield from _decoded(batch)
        return
    sizes = pc.fill_null(pc.binary_length(column), 0).to_numpy(zero_copy_only=False)
    long = np.flatnonzero(sizes > TEXT_BYTES).tolist()
    start = 0
    for place in [*long, batch.num_rows]:
        yield from _decoded(batch.slice(start, place - start))
        if place < batch.num_rows:
            yield "too_long", f"{text} has {sizes[place]} bytes, the limit is {TEXT_BYTES}"
        start = place + 1


def _decoded(batch: pa.RecordBatch) -> Iterator[dict[str, Any] | tuple[str, str]]:
    try:
        yield from batch.to_pylist()
    except UnicodeDecodeError:
        for i in range(batch.num_rows):
            try:
                yield batch.slice(i, 1).to_pylist()[0]
            except UnicodeDecodeError as error:
                yield "bad_utf8", f"byte {error.start}: {error.reason}"
