"""Parquet: one shard a file, or several for a large one, cut between row groups; read batch by batch."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from data_catalog.errors import UserError
from pipeline.config import Columns, Parquet
from pipeline.location import Place, is_file_fault
from pipeline.source.documents import Document, Fault, Shard, encodable
from pipeline.source.files import Listed, describe, find_files, left_for_corpus, shard_name
from pipeline.source.records import to_document

logger = logging.getLogger(__name__)

SUFFIXES = (".parquet",)
SPLIT_BYTES = (
    512 * 2**20
)  # a larger file is cut into pieces of about this size, of its text as Parquet holds it
_BATCH_ROWS = 1_024
_BATCH_BYTES = 32 * 2**20
_BUFFER_BYTES = 2**20  # pages are read as they come: a row group is never held whole


def plan(source: Parquet, held_out: Sequence[Place] = ()) -> list[Shard]:
    """One shard per file, or per `SPLIT_BYTES` of its row groups, ordered by path. Files of `held_out` paths are left out.

    Raises:
        UserError: nothing is at the path, or no Parquet file, or targets hold them all, or the first has no column of text.
    """
    root, files = find_files(source.path, SUFFIXES, "source.path", "Parquet")
    kept = left_for_corpus(source.path, files, root, held_out, logger.warning)
    check_columns(root / next(iter(kept)), source.columns, "source.columns.text")
    return [shard for name in kept for shard in _shards(root, name, kept)]


def check_columns(path: Place, columns: Columns, name: str) -> None:
    """Refuse a text column that a readable file lacks. A broken file is left to the stage that reads it, which records it.

    Raises:
        UserError: there is no such column; `name` is the config field that asks for it.
    """
    try:
        with _open(path) as file:
            there = file.schema_arrow.names
    except (OSError, pa.ArrowException):
        return
    if columns.text not in there:
        raise UserError(
            f'{name}: {path} has no column "{columns.text}"; it has {", ".join(there) or "none"}'
        )


def _shards(root: Place, name: str, files: Listed) -> list[Shard]:
    entry = describe(root, name, files[name])
    shard = Shard(
        name=shard_name(name, SUFFIXES), kind="parquet", root=root, key=entry.path, inputs=(entry,)
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
    """Runs of row groups of about SPLIT_BYTES each, before compression; none if the file cannot be read."""
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


@contextmanager
def _open(path: Place) -> Iterator[pq.ParquetFile]:
    options = {
        "buffer_size": _BUFFER_BYTES,
        "pre_buffer": False,
        "page_checksum_verification": True,
    }  # of pages that have one
    if isinstance(path, Path):
        with pq.ParquetFile(str(path), **options) as file:
            yield file
    else:
        with path.open("rb") as raw, pq.ParquetFile(raw, **options) as file:
            yield file


def read(shard: Shard, columns: Columns) -> Iterator[Document | Fault]:
    """Every record of the shard's row groups, in file order; see `read_file`."""
    return read_file(shard.root / shard.key, shard.key, columns, shard.piece)


def read_file(
    path: Place, label: str, columns: Columns, piece: tuple[int, int] | None = None
) -> Iterator[Document | Fault]:
    """Every record of a file or of its row groups `[first, end)`; a row's number is its place in the whole file.

    What can be read of a broken file comes before its fault, `bad_parquet`. Memory: a batch of rows of some 32 MB,
    or one row if that is larger, and a page of each column.

    Raises:
        OSError: the network failed, not the file: read again.
    """
    source = label.removesuffix(".parquet")
    row = 0
    try:
        with _open(path) as file:
            groups = range(*piece) if piece else range(file.metadata.num_row_groups)
            row = sum(file.metadata.row_group(group).num_rows for group in range(groups.start))
            wanted = [
                name
                for name in (columns.text, columns.id, columns.url, columns.source, "language")
                if name in file.schema_arrow.names
            ]
            if columns.text not in wanted:
                yield Fault(
                    label,
                    None,
                    "no_text",
                    f"no column {columns.text}; there: {', '.join(file.schema_arrow.names)}"[:200],
                )
                return
            for group in groups:
                for batch in file.iter_batches(
                    _batch_rows(file, group),
                    row_groups=[group],
                    columns=list(dict.fromkeys(wanted)),
                ):
                    for record in rows_of(batch):
                        yield (
                            to_document(record, columns, label, row, source)
                            if isinstance(record, dict)
                            else Fault(label, row, *record)
                        )
                        row += 1
    except (OSError, pa.ArrowException) as error:
        if isinstance(error, OSError) and not is_file_fault(error, path):
            raise
        yield Fault(
            label,
            None,
            "bad_parquet",
            f"after row {row - 1}: {encodable(str(error).partition(chr(10))[0])}"[:200],
        )


def _batch_rows(file: pq.ParquetFile, group: int) -> int:
    """Rows that make about `_BATCH_BYTES`: a batch of huge documents has few."""
    metadata = file.metadata.row_group(group)
    return max(
        1, min(_BATCH_ROWS, _BATCH_BYTES * metadata.num_rows // max(1, metadata.total_byte_size))
    )


def rows_of(batch: pa.RecordBatch) -> Iterator[dict[str, Any] | tuple[str, str]]:
    """Each row as a mapping, or as (reason, detail) if its text is not UTF-8, which Parquet files do not have to check."""
    try:
        yield from batch.to_pylist()
    except UnicodeDecodeError:
        for i in range(batch.num_rows):
            try:
                yield batch.slice(i, 1).to_pylist()[0]
            except UnicodeDecodeError as error:
                yield "bad_utf8", f"byte {error.start}: {error.reason}"
