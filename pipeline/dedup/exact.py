"""Exact copies by digest: of a target's text, of a catalog's text, and of an earlier document.

`digests_part` sorts the digests of each part into buckets, and `copies_part` compares a bucket.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from jaxtyping import UInt64

from data_catalog.format.accounts import Account, Tally
from data_catalog.format.manifest import fingerprint
from data_catalog.place import Folder
from pipeline.config import Dedup
from pipeline.dedup.buckets import CHUNK_ROWS, read_records, record_reader, write_records
from pipeline.dedup.drops import CATALOG, DIGEST, NO_REASON, SHIPPED, TARGET, write_drops
from pipeline.dedup.scratch import scratch_database, stream
from pipeline.dedup.targets import DIGESTS_FILE, KnownTexts
from pipeline.parts import Part, make_part
from pipeline.quality.stage import VERDICTS_FILE
from pipeline.source.documents import text_digest
from pipeline.source.stage import DOCUMENTS_FILE

# Versions of the output:
# 1: exact copies, by buckets of digests.
VERSION = 1
MAXIMUM_BUCKET_DIGESTS = 8_000_000  # on average, about 270 MB
LISTED = "dedup.listed"  # note of a part: documents that the corpus says are a copy, or are none
_KNOWN = -1  # position of all texts of a catalog

# `code` is the reason that the part itself found, or NO_REASON.
_DIGEST = np.dtype([("high", "<u8"), ("low", "<u8"), ("position", "<i8"), ("code", "u1")])
_HEX = re.compile(r"[0-9a-f]{32}")
_COPIES = """
WITH groups AS (
    SELECT high, low, min(position) FILTER (position >= 0 AND code = $none) AS first,
           min(code) FILTER (position < 0) AS known
    FROM digests GROUP BY high, low HAVING count(*) > 1
), judged AS (
    SELECT position, least(code, coalesce(known, $none)) AS own, position > first AS is_later
    FROM digests LEFT JOIN groups USING (high, low) WHERE position >= 0
)
SELECT position, CASE WHEN own < $none THEN own ELSE $digest END::UTINYINT AS code FROM judged
WHERE own < $none OR ($by_digest AND is_later) ORDER BY position
"""


def digests_part(
    source: Part,
    judged: Part,
    protected: Part,
    first: int,
    buckets: int,
    folder: Folder,
    config: Dedup,
) -> Part:
    """Write the digests of the documents that quality kept, in buckets.

    The account notes (`LISTED`) for how many of them the corpus says whether they are copies.
    Memory: 33 bytes per document of the part.

    Args:
        source: The source part.
        judged: Quality's part.
        protected: The part of `protect_targets`.
        first: Position of the part's first document.
        buckets: Number of buckets.
        folder: The part's folder.
        config: The tiers.
    """
    by_list = "shipped" in config.tiers

    def make(out: Path) -> Account:
        verdicts = pq.read_table(judged.file(VERDICTS_FILE), columns=["reason"])
        is_kept = pc.is_null(verdicts["reason"]).to_numpy()
        of_targets = pq.read_table(protected.file(DIGESTS_FILE))["digest"]
        pieces: list[np.ndarray] = []
        row, listed = 0, 0
        with pq.ParquetFile(source.file(DOCUMENTS_FILE), pre_buffer=False) as file:
            for batch in file.iter_batches(CHUNK_ROWS, columns=["digest", "shipped_duplicate"]):
                rows = np.flatnonzero(is_kept[row : row + len(batch)])
                kept = batch.take(pa.array(rows))
                records = np.empty(len(rows), _DIGEST)
                records["high"], records["low"] = _words(kept["digest"].to_pylist()).T
                records["position"] = first + row + rows
                records["code"] = NO_REASON
                if by_list:
                    is_copy = pc.fill_null(kept["shipped_duplicate"], False)
                    records["code"][is_copy.to_numpy(zero_copy_only=False)] = SHIPPED
                    listed += len(kept) - kept["shipped_duplicate"].null_count
                is_target = pc.is_in(kept["digest"], value_set=of_targets)
                records["code"][is_target.to_numpy(zero_copy_only=False)] = TARGET
                pieces.append(records)
                row += len(batch)
        amount = Tally(rows=_write(out, pieces, buckets))
        notes = {LISTED: Tally(rows=listed)} if listed else {}
        return Account(read=amount, kept=amount, noted=notes)

    inputs = [source.fingerprint, judged.fingerprint, protected.fingerprint]
    return make_part(folder, fingerprint("digests", VERSION, inputs, first, buckets, by_list), make)


def known_digests_part(known: KnownTexts, number: int, buckets: int, folder: Folder) -> Part:
    """Write the digests of one file of a catalog's texts, in buckets, as `digests_part` does.

    Of a file in a store, only that column is read.
    """

    def make(out: Path) -> Account:
        pieces: list[np.ndarray] = []
        with pq.ParquetFile(known.digests[number].readable(DIGESTS_FILE), pre_buffer=False) as file:
            for batch in file.iter_batches(CHUNK_ROWS, columns=["digest"]):
                words = _words(batch["digest"].drop_null().to_pylist())
                records = np.empty(len(words), _DIGEST)
                records["high"], records["low"] = words.T
                records["position"], records["code"] = _KNOWN, CATALOG
                pieces.append(records)
        amount = Tally(rows=_write(out, pieces, buckets))
        return Account(read=amount, kept=amount)

    key = fingerprint("known digests", VERSION, known.fingerprint, number, buckets)
    return make_part(folder, key, make)


def copies_part(bucket: int, digests: Sequence[Part], folder: Folder, config: Dedup) -> Part:
    """Write the exact copies among the digests of a bucket (`drops.bin`), and their reasons.

    Memory: `dedup.memory_megabytes` of DuckDB, which spills to the folder for temporary files.

    Args:
        bucket: Number of the bucket.
        digests: The parts of `digests_part` and `known_digests_part`.
        folder: The part's folder.
        config: The tiers and the memory.
    """
    by_digest = "digest" in config.tiers

    def make(out: Path) -> Account:
        parameters = {"none": NO_REASON, "digest": DIGEST, "by_digest": by_digest}
        with scratch_database(config.memory_megabytes) as connection:
            reader = record_reader(read_records(digests, bucket, _DIGEST), _DIGEST)
            connection.register("reader", reader)
            connection.execute("CREATE TEMP TABLE digests AS SELECT * FROM reader")
            [(rows,)] = connection.sql("SELECT count(*) FROM digests").fetchall()
            copies = stream(connection, _COPIES, parameters)
            write_drops(
                out, ((batch["position"].to_numpy(), batch["code"].to_numpy()) for batch in copies)
            )
        return Account(read=Tally(rows=rows), kept=Tally(rows=rows))

    inputs = [part.fingerprint for part in digests]
    return make_part(folder, fingerprint("copies", VERSION, bucket, inputs, by_digest), make)


def _write(out: Path, pieces: Iterable[np.ndarray], buckets: int) -> int:
    """Write records sorted by digest and return their number."""
    records = np.concatenate([np.empty(0, _DIGEST), *pieces])
    order = np.argsort(records["high"], kind="stable")

    def chunks() -> Iterator[np.ndarray]:
        for start in range(0, len(order), CHUNK_ROWS):
            yield records[order[start : start + CHUNK_ROWS]]

    write_records(out, records["high"][order], buckets, chunks())
    return len(records)


def _words(digests: Sequence[str]) -> UInt64[np.ndarray, "documents 2"]:
    """Return each digest as two numbers. One of another form than `text_digest` is hashed first."""
    hexadecimal = (digest if _HEX.fullmatch(digest) else text_digest(digest) for digest in digests)
    return np.frombuffer(bytes.fromhex("".join(hexadecimal)), ">u8").reshape(-1, 2).astype("<u8")
