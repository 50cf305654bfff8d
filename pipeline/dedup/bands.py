"""Bands of signatures, sorted into buckets: documents that share a band meet in one task."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from jaxtyping import Bool

from data_catalog.format.accounts import Account, Tally
from data_catalog.format.manifest import fingerprint
from data_catalog.place import Folder
from pipeline.config import Dedup
from pipeline.dedup.buckets import CHUNK_ROWS, write_records
from pipeline.dedup.drops import NEAR_TARGET, read_drops, write_drops
from pipeline.dedup.signatures import BANDS, SIGNATURES_FILE
from pipeline.dedup.sketches import read_bands, sketch_bytes
from pipeline.dedup.targets import TargetIndex
from pipeline.parts import Part, make_part
from pipeline.quality.stage import VERDICTS_FILE

# Versions of the output:
# 1: a hash of each band with the document's sketch, in buckets.
VERSION = 1
MAXIMUM_BUCKET_BANDS = 4_000_000  # on average, about 570 MB
_BATCH_ROWS = 8_192


def band_record(similarity: float) -> np.dtype:
    """Return the type of a record: a band with all that verifying a pair of documents needs."""
    sketch = f"V{sketch_bytes(similarity)}"
    return np.dtype([("band", "<u8"), ("position", "<i8"), ("sketch", sketch)])


def bands_disk(documents: int, config: Dedup) -> dict[str, int]:
    """Return the bytes on disk of the stage `bands`, by its name, if the tier minhash is on."""
    number, _ = BANDS[config.similarity]
    record = band_record(config.similarity)
    return {"bands": documents * number * record.itemsize} if "minhash" in config.tiers else {}


def bands_part(
    judged: Part,
    signed: Part,
    copies: Sequence[Part],
    protected: Part,
    first: int,
    buckets: int,
    folder: Folder,
    config: Dedup,
) -> Part:
    """Write the bands of the documents that no earlier stage drops, in buckets.

    Near copies of targets' documents are dropped here (`drops.bin`). Memory: about 300 bytes per
    document of the part, and the signatures of the targets.

    Args:
        judged: Quality's part.
        signed: The part of `sign_part`.
        copies: The part of `copies_part` for each bucket of digests.
        protected: The part of `protect_targets`.
        first: Position of the part's first document.
        buckets: Number of buckets.
        folder: The part's folder.
        config: The similarity.
    """
    similarity = config.similarity
    number, _ = BANDS[similarity]

    def make(out: Path) -> Account:
        verdicts = pq.read_table(judged.file(VERDICTS_FILE), columns=["reason"])
        is_alive: Bool[np.ndarray, " documents"] = pc.is_null(verdicts["reason"]).to_numpy().copy()
        is_alive[read_drops(copies, first, first + len(is_alive))[0] - first] = False
        targets = TargetIndex.read(protected, similarity)
        rows: list[np.ndarray] = [np.empty(0, np.int64)]
        near_rows: list[np.ndarray] = [np.empty(0, np.int64)]
        hashes: list[np.ndarray] = [np.empty((0, number), np.uint64)]
        sketches: list[np.ndarray] = [np.empty((0, sketch_bytes(similarity)), np.uint8)]
        start = 0
        with pq.ParquetFile(signed.file(SIGNATURES_FILE), pre_buffer=False) as file:
            for batch in file.iter_batches(_BATCH_ROWS):
                is_signed = batch["bands"].is_valid().to_numpy(zero_copy_only=False)
                alive = np.flatnonzero(is_alive[start : start + len(batch)] & is_signed)
                of_batch = read_bands(batch["bands"].take(pa.array(alive)), similarity)
                is_near = targets.near(*of_batch)
                near_rows.append(start + alive[is_near])
                rows.append(start + alive[~is_near])
                for pieces, piece in zip((hashes, sketches), of_batch, strict=True):
                    pieces.append(piece[~is_near])
                start += len(batch)
        near = first + np.concatenate(near_rows)
        write_drops(out, [(near, np.full(len(near), NEAR_TARGET, np.uint8))])
        _write(
            out,
            np.concatenate(hashes),
            first + np.concatenate(rows),
            np.concatenate(sketches),
            buckets,
            similarity,
        )
        alive_rows = sum(map(len, rows))
        return Account(
            read=Tally(rows=alive_rows + len(near)), kept=Tally(rows=alive_rows + len(near))
        )

    inputs = [judged.fingerprint, signed.fingerprint, protected.fingerprint]
    before = [part.fingerprint for part in copies]
    return make_part(
        folder, fingerprint("bands", VERSION, inputs, before, first, buckets, similarity), make
    )


def _write(
    out: Path,
    hashes: np.ndarray,
    positions: np.ndarray,
    sketches: np.ndarray,
    buckets: int,
    similarity: float,
) -> None:
    record = band_record(similarity)
    order = np.argsort(hashes, axis=None, kind="stable")
    bands = hashes.ravel()[order]

    def chunks() -> Iterator[np.ndarray]:
        for start in range(0, len(order), CHUNK_ROWS):
            documents = order[start : start + CHUNK_ROWS] // hashes.shape[1]
            chunk = np.empty(len(documents), record)
            chunk["band"] = bands[start : start + CHUNK_ROWS]
            chunk["position"] = positions[documents]
            chunk["sketch"] = sketches[documents].view(record["sketch"]).ravel()
            yield chunk

    write_records(out, bands, buckets, chunks())
