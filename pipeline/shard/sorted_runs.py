"""First half of the external sort: sorted runs.

A run is an uncompressed Arrow file, which is memory-mapped and read by row ranges.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from jaxtyping import Int, UInt32

from data_catalog.format import tables
from data_catalog.format.accounts import Tally

RUN_BATCH_ROWS = 4_096  # rows per record batch of a run
INDEX_FILE = "index.parquet"  # one row per run and leaf: run, leaf, first_row, rows, bytes
IDS_COLUMN = "ids"  # column of token ids, in addition to tables.DOCUMENTS
# Memory of the fixed columns of a row, and of a signal with its name.
_ROW_BYTES, _SIGNAL_BYTES = 200, 40


@dataclass(frozen=True)
class SortedRuns:
    """The runs that one call of `write_runs` wrote to a folder."""

    folder: Path

    @cached_property
    def index(self) -> dict[str, Int[np.ndarray, " _entries"]]:
        """Columns of `index.parquet`, by run, then by leaf."""
        table = pq.read_table(self.folder / INDEX_FILE)
        return {name: table[name].to_numpy().astype(np.int64) for name in table.column_names}

    def read(self, first: int, last: int) -> Iterator[pa.Table]:
        """Yield the rows of the leaves `first <= leaf < last`, one sorted table per run with any.

        The tables are zero-copy views of the mapped files.
        """
        leaf, run = self.index["leaf"], self.index["run"]
        chosen = np.flatnonzero((leaf >= first) & (leaf < last))
        for number in np.unique(run[chosen]).tolist():
            entries = chosen[run[chosen] == number]
            start = int(self.index["first_row"][entries[0]])
            rows = int(self.index["rows"][entries].sum())
            yield _slice(run_path(self.folder, number), start, rows)


def run_path(folder: Path, number: int) -> Path:
    return folder / f"run-{number:04d}.arrow"


def write_runs(documents: Iterable[pa.Table], folder: Path, run_bytes: int) -> Tally:
    """Write documents with `ids` as sorted runs of about `run_bytes` each, and an index.

    Returns a tally of the documents. Memory: `run_bytes` plus the largest table and the largest
    column of a run.
    """
    index: list[pa.Table] = []
    waiting: list[pa.Table] = []
    size, written = 0, Tally()
    for table in documents:
        if not table.num_rows:
            continue
        waiting.append(table)
        size += int(row_bytes(table).sum())
        if size >= run_bytes:
            index.append(_write_run(waiting, folder, len(index)))
            size = 0
        written += tally_documents(table)
    if waiting:
        index.append(_write_run(waiting, folder, len(index)))
    empty = pa.schema(
        [(name, pa.int64()) for name in ("run", "leaf", "first_row", "rows", "bytes")]
    ).empty_table()
    pq.write_table(pa.concat_tables([empty, *index]), folder / INDEX_FILE, compression="zstd")
    return written


def tally_documents(table: pa.Table) -> Tally:
    """Return the rows, characters and tokens of a table of documents."""
    characters, tokens = (pc.sum(table[name]).as_py() or 0 for name in ("characters", "tokens"))
    return Tally(rows=table.num_rows, characters=characters, tokens=tokens)


def row_bytes(table: pa.Table) -> Int[np.ndarray, " documents"]:
    """Return the memory of each document in bytes.

    It is exact for text and token ids, and an estimate for the other columns.
    """
    text = pc.binary_length(table["text"]).to_numpy().astype(np.int64)
    width = table.schema.field(IDS_COLUMN).type.value_type.bit_width // 8
    signals = pc.fill_null(pc.list_value_length(pc.cast(table["signals"], _PAIRS)), 0).to_numpy()
    return (
        text
        + width * table["tokens"].to_numpy()
        + _SIGNAL_BYTES * signals.astype(np.int64)
        + _ROW_BYTES
    )


_PAIRS = pa.list_(pa.struct([("key", pa.string()), ("value", pa.float64())]))


def sorted_order(table: pa.Table) -> Int[np.ndarray, " documents"]:
    """Return the order of rows by leaf, train before heldout, id_int and doc_id. It is stable."""
    leaf, number = table["leaf"].to_numpy(), table["id_int"].to_numpy()
    held_out = pc.equal(table["split"], "heldout").to_numpy()
    order = np.lexsort((number, held_out, leaf))
    tied = (np.diff(number[order]) == 0) & (np.diff(leaf[order]) == 0)
    # Two documents with one id, or a collision of 64-bit hashes. Ties are rare, so names are not
    # sorted otherwise.
    if tied.any():
        named = pa.table(
            {"leaf": leaf, "held_out": held_out, "number": number, "doc_id": table["doc_id"]}
        )
        order = (
            pc.sort_indices(named, [(name, "ascending") for name in named.column_names])
            .to_numpy()
            .astype(np.int64)
        )
    return order


def take_ranges(
    table: pa.Table, order: Int[np.ndarray, " documents"], ends: Sequence[int]
) -> Iterator[pa.RecordBatch]:
    """Yield the rows `order[:ends[0]]`, `order[ends[0]:ends[1]]` and so on.

    Columns are made contiguous once. `take` on chunks would do so on every call.
    """
    names, run_columns = table.column_names, []
    while table.num_columns:  # one column at a time, to release its chunks
        column = table.column(0).combine_chunks()
        run_columns.append(column.chunk(0) if isinstance(column, pa.ChunkedArray) else column)
        table = table.remove_column(0)
    whole = pa.RecordBatch.from_arrays(run_columns, names)
    start = 0
    for end in ends:
        yield whole.take(pa.array(order[start:end]))
        start = end


def _write_run(waiting: list[pa.Table], folder: Path, number: int) -> pa.Table:
    """Write and clear the `waiting` tables, and return the run's rows of the index."""
    table = pa.concat_tables(waiting)
    waiting.clear()
    order = sorted_order(table)
    leaf = table["leaf"].to_numpy()[order]
    starts = np.flatnonzero(np.r_[True, leaf[1:] != leaf[:-1]])
    sizes = np.add.reduceat(row_bytes(table)[order], starts)
    schema, rows = table.schema, table.num_rows
    ends = [*range(RUN_BATCH_ROWS, rows, RUN_BATCH_ROWS), rows]
    batches = take_ranges(table, order, ends)
    del table
    with (
        pa.OSFile(str(run_path(folder, number)), "wb") as sink,
        pa.ipc.new_file(sink, schema) as writer,
    ):
        for batch in batches:
            writer.write_batch(batch)
    counts = np.diff([*starts.tolist(), rows])
    return _index(number, leaf[starts], starts, counts, sizes)


def _index(
    run: int,
    leaf: UInt32[np.ndarray, " n"],
    first_row: Int[np.ndarray, " n"],
    rows: Int[np.ndarray, " n"],
    sizes: Int[np.ndarray, " n"],
) -> pa.Table:
    run_columns = {
        "run": np.full(len(leaf), run),
        "leaf": leaf,
        "first_row": first_row,
        "rows": rows,
        "bytes": sizes,
    }
    return pa.table({name: column.astype(np.int64) for name, column in run_columns.items()})


def _slice(path: Path, start: int, rows: int) -> pa.Table:
    with pa.memory_map(str(path)) as source:
        file = pa.ipc.open_file(source)
        first, last = start // RUN_BATCH_ROWS, (start + rows - 1) // RUN_BATCH_ROWS
        batches = [file.get_batch(number) for number in range(first, last + 1)]
    return pa.Table.from_batches(batches).slice(start - first * RUN_BATCH_ROWS, rows)


def run_columns() -> list[str]:
    """Return the names of a run's columns, in order."""
    return [*tables.DOCUMENTS.names, IDS_COLUMN]
