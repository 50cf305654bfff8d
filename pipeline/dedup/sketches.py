"""Hashes of bands, which find near copies, and sketches, which verify them.

Two documents are candidates if they share a band. Whether they are near copies is decided by the
estimate of their Jaccard similarity from all values of their bands. The last byte of a value
suffices (b-bit minwise hashing, arXiv:0910.3349): different values share it once in 256, which the
estimate takes into account. So a document takes 126 bytes instead of 504, at the same accuracy.
"""

import numpy as np
import pyarrow as pa
from jaxtyping import Float64, UInt8, UInt64

from pipeline.dedup.signatures import BANDS

_CHANCE = 1 / 256  # probability that two different values have the same last byte
# Odd constants of SplitMix64. A collision of two hashes only adds a pair that is not verified.
_STEP, _FIRST, _SECOND = (
    np.uint64(0x9E3779B97F4A7C15),
    np.uint64(0xBF58476D1CE4E5B9),
    np.uint64(0x94D049BB133111EB),
)


def sketch_bytes(similarity: float) -> int:
    """Return the length of a sketch: the number of MinHash values in all bands."""
    bands, rows = BANDS[similarity]
    return bands * rows


def minimum_estimate(similarity: float) -> float:
    """Return the smallest estimate that verifies a pair: one standard error below `similarity`.

    Without the allowance, half of the pairs that are exactly that similar would be missed.
    """
    return similarity - float(np.sqrt(similarity * (1 - similarity) / sketch_bytes(similarity)))


def read_bands(
    bands: pa.Array, similarity: float
) -> tuple[UInt64[np.ndarray, "documents bands"], UInt8[np.ndarray, "documents values"]]:
    """Return a hash of each band and the sketch of each document.

    Args:
        bands: Column of tables.SIGNATURES without nulls.
        similarity: The similarity that the bands were made for.
    """
    number, rows = BANDS[similarity]
    flat = bands.flatten().cast(pa.binary(4 * rows))
    size = len(flat) * rows
    values = np.frombuffer(flat.buffers()[1] or b"", ">u4", size, flat.offset * 4 * rows)
    values = values.astype(np.uint64).reshape(-1, number, rows)
    hashes = np.broadcast_to(np.arange(number, dtype=np.uint64) * _STEP, values.shape[:2])
    for i in range(rows):
        hashes = _mix((hashes ^ values[:, :, i]) + _STEP)
    return hashes, values.astype(np.uint8).reshape(-1, number * rows)


def estimate_similarity(
    a: UInt8[np.ndarray, "pairs values"], b: UInt8[np.ndarray, "pairs values"]
) -> Float64[np.ndarray, " pairs"]:
    """Return the estimated Jaccard similarity of the documents of each pair of sketches."""
    shared = np.count_nonzero(a == b, axis=1) / a.shape[1]
    return (shared - _CHANCE) / (1 - _CHANCE)


def _mix(x: UInt64[np.ndarray, "documents bands"]) -> UInt64[np.ndarray, "documents bands"]:
    x = (x ^ (x >> np.uint64(30))) * _FIRST
    x = (x ^ (x >> np.uint64(27))) * _SECOND
    return x ^ (x >> np.uint64(31))
