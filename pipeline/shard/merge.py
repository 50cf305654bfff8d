"""Second half of the external sort: one range of all runs becomes files of a bounded size."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from jaxtyping import Int, Integer

from data_catalog.format import tables
from data_catalog.format.accounts import Tally
from data_catalog.format.offsets import extents
from data_catalog.format.tokens import write_tokens
from pipeline.shard.sorted_runs import (
    IDS_COLUMN,
    SortedRuns,
    row_bytes,
    sorted_order,
    take_ranges,
    tally_documents,
)

# A row group ends with a leaf, so that a domain is read without its neighbours, but has at least
# this many rows.
MINIMUM_GROUP_ROWS = 2_048
MAXIMUM_GROUP_ROWS = 16_384  # a leaf with more rows has several groups
MAXIMUM_MAPS = 64  # runs whose rows of one stored file are views, and not copies
_DICTIONARY_COLUMNS = ["source", "language", "split", "signals.key_value.key"]
# Columns whose minima and maxima let a reader skip row groups.
_STATISTICS_COLUMNS = ["id_int", "characters", "tokens", "leaf", "distance"]


@dataclass(frozen=True)
class LeafRange:
    """Leaves `first <= leaf < last` of one file, or one of several shares of a large leaf."""

    first: int
    last: int
    number: int = 0
    shares: int = 1


def plan_files(
    leaves: Int[np.ndarray, " n"], sizes: Int[np.ndarray, " n"], most: int
) -> list[LeafRange]:
    """Cut ascending `leaves` of `sizes` bytes each into ranges of at most `most` bytes.

    There are as few as a walk in order gives. A larger leaf is cut into shares of about `most`
    bytes by the hash of its documents' ids.
    """
    ranges: list[LeafRange] = []
    first, size = -1, 0
    for leaf, amount in zip(leaves.tolist(), sizes.tolist(), strict=True):
        if first >= 0 and size + amount > most:
            ranges.append(LeafRange(first, leaf))
            first = -1
        if amount > most:
            shares = -(-amount // most)
            ranges += [LeafRange(leaf, leaf + 1, number, shares) for number in range(shares)]
        elif first < 0:
            first, size = leaf, amount
        else:
            size += amount
    if first >= 0:
        ranges.append(LeafRange(first, int(leaves[-1]) + 1))
    return ranges


def merge_runs(
    runs: Sequence[SortedRuns],
    first: int,
    last: int,
    out: Path,
    file_bytes: int,
    top: int,
) -> tuple[pa.Table, Tally]:
    """Write the leaves `first <= leaf < last` of all runs as files numbered from 0.

    The files are `documents-PPPP.parquet` and `tokens-PPPP.arrow`. Returns their offsets
    (tables.OFFSETS) and a tally of their documents. Reads each run for the sizes of the leaves, and
    then the rows of each file. Memory: twice `file_bytes`, and as much again of mapped pages that
    the system may drop, or of copies with more than `MAXIMUM_MAPS` runs, and 8 bytes per leaf of
    the range. It depends neither on the size of the corpus nor on a domain's share, because ids are
    hashes.
    """
    sizes = np.zeros(last - first, np.int64)
    for run in runs:
        for table in run.read(first, last):
            np.add.at(sizes, table["leaf"].to_numpy() - first, row_bytes(table))
    filled = np.flatnonzero(sizes)
    part = 0
    offsets, written = [tables.OFFSETS.empty_table()], Tally()
    for wanted in plan_files(filled + first, sizes[filled], file_bytes):
        table = _gather(runs, wanted)
        if table.num_rows:
            written += tally_documents(table)
            offsets.append(_write_files(table, out, top, part))
            part += 1
    return pa.concat_tables(offsets), written


def _gather(runs: Sequence[SortedRuns], wanted: LeafRange) -> pa.Table:
    """Return the range's rows of every run, run after run.

    The rows of at most `MAXIMUM_MAPS` runs are views. Those of the others are copied.
    """
    width = -(-(2**64) // wanted.shares)
    pieces: list[pa.Table] = []
    mapped: list[pa.Table] = []
    for run in runs:
        for table in run.read(wanted.first, wanted.last):
            if wanted.shares > 1:
                of_share = table["id_int"].to_numpy() // np.uint64(width) == wanted.number
                pieces.append(table.filter(pa.array(of_share)))  # a copy
                continue
            mapped.append(table)
            if len(mapped) == MAXIMUM_MAPS:
                pieces.append(pa.concat_tables(mapped).combine_chunks())  # a copy
                mapped.clear()
    return pa.concat_tables([*pieces, *mapped])


def _write_files(table: pa.Table, out: Path, top: int, part: int) -> pa.Table:
    order = sorted_order(table)
    leaf, tokens = table["leaf"].to_numpy()[order], table["tokens"].to_numpy()[order]
    held_out = pc.equal(table["split"], "heldout").to_numpy()[order]
    [ids] = take_ranges(table.select([IDS_COLUMN]), order, [len(order)])
    write_tokens(out / f"tokens-{part:04d}.arrow", ids.column(0))
    del ids
    documents = table.select(tables.DOCUMENTS.names)
    del table
    with pq.ParquetWriter(
        out / f"documents-{part:04d}.parquet",
        tables.DOCUMENTS,
        compression="zstd",
        use_dictionary=_DICTIONARY_COLUMNS,
        write_statistics=_STATISTICS_COLUMNS,
    ) as writer:
        for batch in take_ranges(documents, order, group_ends(leaf)):
            writer.write_table(
                pa.Table.from_batches([batch]).cast(tables.DOCUMENTS),
                row_group_size=MAXIMUM_GROUP_ROWS,
            )
    return extents(leaf, held_out, tokens, top, part)


def group_ends(leaf: Integer[np.ndarray, " documents"]) -> list[int]:
    """Return the ends of row groups, for sorted leaves.

    A group ends if the leaf changes after MINIMUM_GROUP_ROWS or more, or at MAXIMUM_GROUP_ROWS.
    """
    ends, start = [], 0
    for end in [*(np.flatnonzero(np.diff(leaf)) + 1).tolist(), len(leaf)]:
        if end - start >= MINIMUM_GROUP_ROWS or end == len(leaf):
            ends += [*range(start + MAXIMUM_GROUP_ROWS, end, MAXIMUM_GROUP_ROWS), end]
            start = end
    return ends
