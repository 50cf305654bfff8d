"""Write documents as files of similar size, in JSON lines or Parquet."""

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import UInt64

from data_catalog.export.sampling import ORDER_IN_SHARD, SHARD_NUMBER, keyed

Format = Literal["jsonl", "parquet"]
_GROUP_ROWS = 1024  # rows per Parquet row group, which readers hold in memory
_BUFFER_BYTES = 64 * 2**20  # documents distributed to shards at once


@runtime_checkable
class Writer(Protocol):
    """Writes tables to a file."""

    def write(self, table: pa.Table) -> None: ...

    def close(self) -> None: ...


class _JsonLines:
    def __init__(self, path: Path, _: pa.Schema) -> None:
        self._file = path.open("w", encoding="utf-8", newline="\n")

    def write(self, table: pa.Table) -> None:
        for batch in table.to_batches(_GROUP_ROWS):
            for row in batch.to_pylist(maps_as_pydicts="strict"):
                self._file.write(json.dumps(row, ensure_ascii=False) + "\n")

    def close(self) -> None:
        self._file.close()


class _Parquet:
    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._writer = pq.ParquetWriter(path, schema, compression="zstd")

    def write(self, table: pa.Table) -> None:
        self._writer.write_table(table, row_group_size=_GROUP_ROWS)

    def close(self) -> None:
        self._writer.close()


_WRITERS: dict[Format, Callable[[Path, pa.Schema], Writer]] = {
    "jsonl": _JsonLines,
    "parquet": _Parquet,
}


def write_shards(
    shards: Iterable[Iterable[pa.Table]], folder: Path, form: Format, columns: list[str]
) -> Iterator[tuple[Path, pa.Table]]:
    """Write each shard as a file in `folder`, with only the given columns.

    Yields:
        The file and each piece, after it has been written.
    """
    folder.mkdir(parents=True)
    for number, pieces in enumerate(shards):
        path = folder / f"shard_{number:05d}.{form}"
        with ExitStack() as closing:
            writer: Writer | None = None
            for piece in pieces:
                table = piece.select(columns)
                if writer is None:
                    writer = _WRITERS[form](path, table.schema)
                    closing.callback(writer.close)
                writer.write(table)
                yield path, piece


def cut(pieces: Iterable[pa.Table], shard_bytes: int) -> Iterator[Iterator[pa.Table]]:
    """Group pieces into shards of about `shard_bytes`, in order.

    Each shard must be consumed before the next one.
    """
    left = iter(pieces)

    def shard(first: pa.Table) -> Iterator[pa.Table]:
        yield first
        size = first.nbytes
        while size < shard_bytes and (piece := next(left, None)) is not None:
            yield piece
            size += piece.nbytes

    while (first := next(left, None)) is not None:
        yield shard(first)


def shuffled(
    pieces: Iterable[pa.Table], shards: int, seed: int, scratch: Path
) -> Iterator[Iterator[pa.Table]]:
    """Yield all documents in random order, distributed over shards.

    Documents are first written to one file per shard in `scratch`. Each shard is then ordered in
    memory. The pieces need the column `id_int`.
    """
    scratch.mkdir(parents=True)
    with ExitStack() as closing:
        files: dict[int, pa.RecordBatchWriter] = {}
        for piece in _buffered(pieces):
            shard = keyed(_ids(piece), seed, SHARD_NUMBER) % np.uint64(shards)
            order = np.argsort(shard, kind="stable")
            starts = np.searchsorted(shard[order], np.arange(shards + 1, dtype=np.uint64))
            for number in np.flatnonzero(np.diff(starts)).tolist():
                if number not in files:
                    files[number] = closing.enter_context(
                        pa.ipc.new_stream(scratch / f"{number:05d}.arrow", piece.schema)
                    )
                files[number].write_table(piece.take(order[starts[number] : starts[number + 1]]))
    for number in sorted(files):
        path = scratch / f"{number:05d}.arrow"
        with pa.ipc.open_stream(path) as reader:
            table = reader.read_all()
        yield iter(
            [table.take(np.argsort(keyed(_ids(table), seed, ORDER_IN_SHARD), kind="stable"))]
        )
        path.unlink()


def _ids(table: pa.Table) -> UInt64[np.ndarray, " n"]:
    return table["id_int"].to_numpy()


def _buffered(pieces: Iterable[pa.Table]) -> Iterator[pa.Table]:
    held: list[pa.Table] = []
    for piece in pieces:
        held.append(piece)
        if sum(table.nbytes for table in held) >= _BUFFER_BYTES:
            yield pa.concat_tables(held).combine_chunks()
            held = []
    if held:
        yield pa.concat_tables(held).combine_chunks()
