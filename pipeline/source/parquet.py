"""Parquet files: one shard per file. Large files are split into several, between row groups."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data_catalog.errors import UserError
from pipeline.location import File, Place, file_below, is_file_fault
from pipeline.source.config import Columns, Parquet
from pipeline.source.documents import Document, Fault, Inventory, Shard, encodable
from pipeline.source.files import FoundFile, describe_file, find_files, shard_name, without_reserved
from pipeline.source.head import HEAD_DOCUMENTS, Head, head_of_documents
from pipeline.source.interface import Source
from pipeline.source.lines import TEXT_BYTES
from pipeline.source.records import RecordReader

PARQUET_SUFFIXES = (".parquet",)
# A larger file is split into shards of about this size, of uncompressed columns.
SPLIT_BYTES = 512 * 2**20
_BATCH_ROWS = 1_024
_BATCH_BYTES = 32 * 2**20
_BUFFER_BYTES = 2**20  # pages are streamed: a row group is never in memory as a whole


class ParquetSource(Source[Parquet]):
    """A Parquet file, or all such files below a folder or URL."""

    def plan(self) -> Inventory:
        """Return one shard per file, or per `SPLIT_BYTES` of its row groups, ordered by path.

        Files that belong to targets are left out.

        Raises:
            UserError: There is nothing at the path, no Parquet file, targets have them all, or
                the first file lacks a column that the config names or has no text.
        """
        path, suffixes = self.section.path, self.section.suffixes
        found = find_files(path, suffixes, "source.path", "Parquet")
        found = without_reserved(path, found, self.reservations.paths)
        first = file_below(found.root, found.files[0].name)
        check_columns(first, self.section.columns, "source.columns")
        shards = [shard for file in found.files for shard in _shards(found.root, file, suffixes)]
        return Inventory(shards, found.notes())

    def read(self, shard: Shard) -> Iterator[Document | Fault]:
        """Yield every record of the shard's row groups, in the order of the file."""
        file = file_below(shard.root, shard.inputs[0].name)
        suffixes, columns = self.section.suffixes, self.section.columns
        return read_parquet(file, shard.key, columns, shard.piece, suffixes)

    def choices(self) -> list[object]:
        """Return the names of the columns and the suffixes, if they are not the default ones."""
        columns, suffixes = self.section.columns, self.section.suffixes
        return [
            *([columns] if columns != Columns() else []),
            *([suffixes] if suffixes != PARQUET_SUFFIXES else []),
        ]

    def size(self, shard: Shard) -> float:
        """Return the file's bytes, times the number of row groups if the file is split."""
        first, end = shard.piece or (0, 1)
        return super().size(shard) * (end - first)

    def read_head(self, shard: Shard) -> Head:
        """Return the first documents. The file's footer has the exact number of rows.

        The number of documents is that of the rows, times the share of rows of the head that are
        documents.
        """
        rows = _count_rows(shard)
        head = head_of_documents(self.read(shard), HEAD_DOCUMENTS)
        if head.share == 1:  # the whole shard
            return Head(head.texts, head.languages, head.records, 1.0, True, head.faults)
        read = len(head.texts) + sum(fault.records for fault in head.faults if fault.counted)
        records = rows * len(head.texts) / max(read, 1)
        share = min(read / max(rows, 1), 1.0)
        return Head(head.texts, head.languages, records, share, True, head.faults)


def check_columns(path: File, columns: Columns, key: str) -> None:
    """Check that a file has a column of text, and the columns that the config names.

    A broken file passes: the stage that reads it records a fault.

    Raises:
        UserError: There is no such column, or the text is of another type. `key` is the config key
            of the columns.
    """
    try:
        with _open(path) as file:
            schema = file.schema_arrow
    except (OSError, pa.ArrowException):
        return
    there = f"Its columns are {', '.join(schema.names) or 'none'}."
    for field in type(columns).model_fields:
        name = getattr(columns, field)
        # A form writes every default out.
        if name not in schema.names and (field == "text" or name != field):
            raise UserError(f'{key}.{field}: {path} has no column "{name}". {there} Name another.')
    if wrong := _wrong_type(schema, columns.text):
        raise UserError(f"{key}.text: {path}: {wrong}. {there} Name the one that has the text.")


def _wrong_type(schema: pa.Schema, name: str) -> str:
    """Return a sentence if a column can hold no text, else an empty string."""
    kind = schema.field(name).type
    value = kind.value_type if pa.types.is_dictionary(kind) else kind
    is_text = any(is_kind(value) for is_kind in _TEXT_TYPES)
    return "" if is_text else f"{name} is {kind}, expected a string"


_TEXT_TYPES = (
    pa.types.is_string,
    pa.types.is_large_string,
    pa.types.is_string_view,
    pa.types.is_binary,
    pa.types.is_large_binary,
    pa.types.is_binary_view,
    pa.types.is_null,
)


def _shards(root: Place, file: FoundFile, suffixes: Sequence[str]) -> list[Shard]:
    entry = describe_file(root, file)
    shard = Shard(
        name=shard_name(file.label, suffixes),
        kind="parquet",
        root=root,
        key=entry.path,
        inputs=(entry,),
    )
    if entry.bytes <= SPLIT_BYTES:
        return [shard]
    pieces = _pieces(file_below(root, file.name))
    if len(pieces) < 2:
        return [shard]
    return [
        shard.model_copy(update={"name": f"{shard.name}.{i:04d}", "piece": piece})
        for i, piece in enumerate(pieces)
    ]


def _pieces(path: File) -> list[tuple[int, int]]:
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
        with _open(file_below(shard.root, shard.inputs[0].name)) as file:
            groups = range(*shard.piece) if shard.piece else range(file.metadata.num_row_groups)
            return sum(file.metadata.row_group(group).num_rows for group in groups)
    except (OSError, pa.ArrowException):
        return 0


@contextmanager
def _open(path: File) -> Iterator[pq.ParquetFile]:
    options = {
        "buffer_size": _BUFFER_BYTES,
        "pre_buffer": False,
        "page_checksum_verification": True,  # of pages that have a checksum
    }
    # Arrow takes paths as UTF-8, and names need not be.
    if isinstance(path, Path) and _is_utf8(path):
        with pq.ParquetFile(str(path), **options) as file:
            yield file
    else:
        with path.open("rb") as raw, pq.ParquetFile(raw, **options) as file:
            yield file


def _is_utf8(path: Path) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in str(path))


def read_parquet(
    path: File,
    label: str,
    columns: Columns,
    row_groups: tuple[int, int] | None = None,
    suffixes: Sequence[str] = PARQUET_SUFFIXES,
) -> Iterator[Document | Fault]:
    """Yield every record of a file, or of its row groups `[first, end)`.

    The row of a record is its place in the whole file. What can be read of a broken file comes
    before its fault, `bad_parquet`, which counts the rows that follow. Memory holds a batch of
    about 32 MB, or one row if that is larger, and a page of each column. A text of more than
    `TEXT_BYTES` is a fault, `too_long`, and only Arrow holds it: about four times its size.

    Args:
        path: The file.
        label: Name of the file in ids and faults.
        columns: Names of the columns. Text in a column of bytes has to be UTF-8.
        row_groups: The row groups to read, or None for all.
        suffixes: Endings of file names. The name without its ending is the documents' `source`, if
            they have none.

    Raises:
        OSError: The network failed. Reading again may help.
    """
    ending = next((suffix for suffix in suffixes if label.endswith(suffix)), "")
    reader = RecordReader(columns, label, label.removesuffix(ending))
    row = end = 0
    try:
        with _open(path) as file:
            groups = range(*row_groups) if row_groups else range(file.metadata.num_row_groups)
            rows = [file.metadata.row_group(group).num_rows for group in range(groups.stop)]
            row, end = sum(rows[: groups.start]), sum(rows)
            schema = file.schema_arrow
            if columns.text not in schema.names:
                wrong = f"no column {columns.text}; there: {', '.join(schema.names)}"
            else:
                wrong = _wrong_type(schema, columns.text)
            if wrong:
                yield Fault(label, None, "no_text", wrong[:200], records=max(end - row, 1))
                return
            wanted = (columns.text, columns.id, columns.url, columns.source, "language")
            read = [name for name in dict.fromkeys(wanted) if name in schema.names]
            for group in groups:
                for batch in file.iter_batches(
                    _batch_rows(file, group), row_groups=[group], columns=read
                ):
                    for record in _rows(batch, columns.text):
                        yield (
                            reader.document(record, row)
                            if isinstance(record, dict)
                            else Fault(label, row, *record)
                        )
                        row += 1
    except (OSError, pa.ArrowException) as error:
        if isinstance(error, OSError) and not is_file_fault(error, path):
            raise
        where = f"after row {row - 1}" + (f" of {end}" if end else "")
        detail = f"{where}: {encodable(str(error).partition(chr(10))[0])}"[:200]
        yield Fault(label, None, "bad_parquet", detail, records=max(end - row, 1))
    yield from reader.notes()


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
    if not isinstance(
        column, pa.StringArray | pa.LargeStringArray | pa.BinaryArray | pa.LargeBinaryArray
    ):
        yield from _decoded(batch, text)
        return
    sizes = pc.fill_null(pc.binary_length(column), 0).to_numpy(zero_copy_only=False)
    long = np.flatnonzero(sizes > TEXT_BYTES).tolist()
    start = 0
    for place in [*long, batch.num_rows]:
        yield from _decoded(batch.slice(start, place - start), text)
        if place < batch.num_rows:
            yield "too_long", f"{text} has {sizes[place]} bytes, the limit is {TEXT_BYTES}"
        start = place + 1


def _decoded(batch: pa.RecordBatch, text: str) -> Iterator[dict[str, Any] | tuple[str, str]]:
    """Yield each row with its bytes decoded, or as `(reason, detail)` if the text is not UTF-8."""
    try:
        rows: list[dict[str, Any]] = batch.to_pylist()
    except UnicodeDecodeError:
        for i in range(batch.num_rows):
            try:
                [row] = batch.slice(i, 1).to_pylist()
            except UnicodeDecodeError as error:
                yield "bad_utf8", f"byte {error.start}: {error.reason}"
            else:
                yield _without_bytes(row, text)
        return
    for row in rows:
        yield _without_bytes(row, text)


def _without_bytes(row: dict[str, Any], text: str) -> dict[str, Any] | tuple[str, str]:
    for name, value in row.items():
        if isinstance(value, bytes):
            try:
                row[name] = value.decode()
            except UnicodeDecodeError as error:
                if name == text:
                    return "bad_utf8", f"byte {error.start}: {error.reason}"
    return row
