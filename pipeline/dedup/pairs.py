"""Near copies in a bucket of bands: candidates are documents that share a band, and are verified.

A document is compared with the first `FIRST` documents that share a band with it. If it is near to
none of them, it is compared with the `PREVIOUS` ones just before it. So a bucket costs at most
`FIRST + PREVIOUS` comparisons and `FIRST` pairs per record, also if all documents share one band,
and up to that size of a group all of its pairs are compared. The first documents of a group are the
most likely to stay, as documents are decided in reading order. The previous ones find runs of
copies, such as versions of a page, in a group of different documents with common boilerplate.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Int64, UInt8, UInt64

from data_catalog.format.accounts import Account, Tally
from data_catalog.format.manifest import fingerprint
from data_catalog.place import Folder
from pipeline.config import Dedup
from pipeline.dedup.bands import band_record
from pipeline.dedup.buckets import read_records, record_reader
from pipeline.dedup.scratch import scratch_database, stream
from pipeline.dedup.sketches import estimate_similarity, minimum_estimate, sketch_bytes
from pipeline.parts import Part, make_part

# Versions of the output:
# 1: verified pairs.
VERSION = 1
PAIRS_FILE = "pairs.parquet"
FIRST, PREVIOUS = 8, 8
_PAIRS = pa.schema([("later", pa.int64()), ("earlier", pa.int64())])
_SORTED = "SELECT band, position, sketch FROM reader ORDER BY band, position"

Pair = Int64[np.ndarray, " pairs"]


class Records(NamedTuple):
    """Records of bands, sorted by band and then by position."""

    bands: UInt64[np.ndarray, " records"]
    positions: Int64[np.ndarray, " records"]
    sketches: UInt8[np.ndarray, "records values"]

    def take(self, rows: np.ndarray) -> "Records":
        return Records(self.bands[rows], self.positions[rows], self.sketches[rows])


def pairs_part(bucket: int, bands: Sequence[Part], folder: Folder, config: Dedup) -> Part:
    """Write the verified pairs of near copies of a bucket (`pairs.parquet`): later and earlier one.

    A pair is verified if the estimate of its Jaccard similarity from the signatures is at most one
    standard error below `dedup.similarity`. Memory: `dedup.memory_megabytes` of DuckDB, which sorts
    the records and spills to the folder for temporary files, and about 50 MB.

    Args:
        bucket: Number of the bucket.
        bands: The part of `bands_part` for each source part.
        folder: The part's folder.
        config: The similarity and the memory.
    """
    similarity = config.similarity
    minimum = minimum_estimate(similarity)

    def make(out: Path) -> Account:
        read = 0
        record = band_record(similarity)
        with (
            scratch_database(config.memory_megabytes) as connection,
            pq.ParquetWriter(out / PAIRS_FILE, _PAIRS, compression="zstd") as writer,
        ):
            chunks = read_records(bands, bucket, record)
            connection.register("reader", record_reader(chunks, record))
            batches = (_records(batch, similarity) for batch in stream(connection, _SORTED))
            for records, later, earlier in verified_pairs(batches, minimum):
                writer.write_table(pa.table([later, earlier], schema=_PAIRS))
                read += records
        return Account(read=Tally(rows=read), kept=Tally(rows=read))

    inputs = [part.fingerprint for part in bands]
    key = fingerprint("pairs", VERSION, FIRST, PREVIOUS, bucket, inputs, similarity)
    return make_part(folder, key, make)


def verified_pairs(batches: Iterable[Records], minimum: float) -> Iterator[tuple[int, Pair, Pair]]:
    """Yield the number of records of each batch, and the verified pairs with a later one in it.

    The pairs do not depend on where a batch ends.

    Args:
        batches: Records in order, also from one batch to the next.
        minimum: Smallest estimate of the similarity of a near copy.
    """
    context: Records | None = None  # records of the last group that others may be compared with
    for batch in batches:
        before = len(context.bands) if context else 0
        records = (
            Records(*map(np.concatenate, zip(context, batch, strict=True))) if context else batch
        )
        starts = _group_starts(records.bands)
        later, earlier = _near(records, starts, before, minimum)
        yield len(batch.bands), records.positions[later], records.positions[earlier]
        if len(records.bands):
            last = np.arange(starts[-1], len(records.bands))
            if len(last) > FIRST + PREVIOUS:
                last = np.concatenate([last[:FIRST], last[-PREVIOUS:]])
            context = records.take(last)


def _near(
    records: Records, starts: Int64[np.ndarray, " records"], before: int, minimum: float
) -> tuple[Pair, Pair]:
    """Return the rows of the later and the earlier record of each verified pair.

    Args:
        records: The records.
        starts: First row of the group of each.
        before: Number of records whose pairs were compared in an earlier batch.
        minimum: Smallest estimate of the similarity of a near copy.
    """
    rows = np.arange(before, len(starts))
    rank = rows - starts[before:]
    found: list[tuple[Pair, Pair]] = [(rows[:0], rows[:0])]
    is_near = np.zeros(len(starts), bool)

    def compare(later: Pair, earlier: Pair) -> None:
        estimate = estimate_similarity(records.sketches[later], records.sketches[earlier])
        verified = estimate >= minimum
        found.append((later[verified], earlier[verified]))
        is_near[later[verified]] = True

    for i in range(FIRST):
        later = rows[rank > i]
        compare(later, starts[later] + i)
    is_alone = ~is_near[rows]
    for i in range(1, PREVIOUS + 1):
        later = rows[(rank - i >= FIRST) & is_alone]
        compare(later, later - i)
    later, earlier = zip(*found, strict=True)
    return np.concatenate(later), np.concatenate(earlier)


def _group_starts(bands: UInt64[np.ndarray, " records"]) -> Int64[np.ndarray, " records"]:
    """Return the first row of the group of equal bands of each record."""
    is_first = np.ones(len(bands), bool)
    is_first[1:] = bands[1:] != bands[:-1]
    return np.flatnonzero(is_first)[np.cumsum(is_first) - 1]


def _records(batch: pa.RecordBatch, similarity: float) -> Records:
    size = sketch_bytes(similarity)
    sketches = batch["sketch"].cast(pa.binary(size))
    buffer = sketches.buffers()[1] or b""
    flat = np.frombuffer(buffer, np.uint8, len(sketches) * size, sketches.offset * size)
    return Records(batch["band"].to_numpy(), batch["position"].to_numpy(), flat.reshape(-1, size))
