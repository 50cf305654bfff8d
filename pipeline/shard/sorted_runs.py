"""First half of the external sort: sorted runs, divided by range of leaves.

A part has one file per range, which holds the rows of each run as an uncompressed Arrow stream, one
after the other. The file is memory-mapped. Rows are found by their leaves, so there is no index.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Int

from data_catalog.format import tables
from data_catalog.format.accounts import Tally

RUN_BATCH_ROWS = 4_096  # rows per record batch of a run
IDS_COLUMN = "ids"  # column of token ids, in addition to tables.DOCUMENTS
# Memory of the fixed columns of a row, and of a signal with its name.
_ROW_BYTES, _SIGNAL_BYTES = 200, 40


@dataclass(frozen=True)
class SortedRuns:
    """The rows of one range in the runs that one call of `write_runs` wrote to a folder."""

    folder: Path
    number: int = 0
    """Number of the range."""
    stay_mapped: bool = False
    """Keep the file mapped after the first read, instead of mapping it for every read."""

    def read(self, first: int, last: int) -> Iterator[pa.Table]:
        """Yield the rows of the leaves `first <= leaf < last`, one sorted table per run with any.

        The tables are zero-copy views of the mapped file. Memory: 4 bytes per row of a run.
        """
        edges = np.array([first, last], np.uint32)
        for run in self._mapped_runs if self.stay_mapped else self._map_runs():
            start, end = np.searchsorted(run["leaf"].to_numpy(), edges).tolist()
            if start < end:
                yield run.slice(start, end - start)

    @cached_property
    def _mapped_runs(self) -> list[pa.Table]:
        return list(self._map_runs())

    def _map_runs(self) -> Iterator[pa.Table]:
        path = range_path(self.folder, self.number)
        if not path.is_file():
            return
        with pa.memory_map(str(path)) as file:
            while file.tell() < file.size():
                yield pa.ipc.open_stream(file).read_all()


def range_path(folder: Path, number: int) -> Path:
    """Return the file of a part's rows in one range. It is missing if there are none."""
    return folder / range_name(number)


def range_name(number: int) -> str:
    """Return the name of the file of a part's rows in one range."""
    return f"range-{number:05d}.arrow"


def write_runs(
    documents: Iterable[pa.Table], folder: Path, run_bytes: int, bounds: Sequence[int]
) -> Tally:
    """Write documents with `ids` as sorted runs of about `run_bytes` each, in one file per range.

    Returns a tally of the documents. Memory: `run_bytes` plus the largest table and the largest
    column of a run. One file is open at a time.

    Args:
        documents: Tables with the columns `run_columns`.
        folder: Folder of the files, which has none yet.
        run_bytes: Size of a run in memory.
        bounds: The first leaf of each range, and the number of leaves.
    """
    waiting: list[pa.Table] = []
    size, written = 0, Tally()
    for table in documents:
        if not table.num_rows:
            continue
        waiting.append(table)
        size += int(row_bytes(table).sum())
        if size >= run_bytes:
            _write_run(waiting, folder, bounds)
            size = 0
        written += tally_documents(table)
    if waiting:
        _write_run(waiting, folder, bounds)
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


def _write_run(waiting: list[pa.Table], folder: Path, bounds: Sequence[int]) -> None:
    """Append the rows of the `waiting` tables to the files of their ranges, and clear the list."""
    table = pa.concat_tables(waiting)
    waiting.clear()
    order = sorted_order(table)
    first_rows = np.searchsorted(table["leaf"].to_numpy()[order], bounds).tolist()
    batch_ends = [
        [*range(start + RUN_BATCH_ROWS, end, RUN_BATCH_ROWS), end] if start < end else []
        for start, end in pairwise(first_rows)
    ]
    schema = table.schema
    batches = take_ranges(table, order, [end for ends in batch_ends for end in ends])
    del table
    for number, ends in enumerate(batch_ends):
        if not ends:
            continue
        with (
            pa.OSFile(str(range_path(folder, number)), "ab") as sink,
            pa.ipc.new_stream(sink, schema) as writer,
        ):
            for _ in ends:
                writer.write_batch(next(batches))


def run_columns() -> list[str]:
    """Return the names of a run's columns, in order."""
    return [*tables.DOCUMENTS.names, IDS_COLUMN]
