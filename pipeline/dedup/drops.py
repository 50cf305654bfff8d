"""Documents that a stage of dedup drops, by position, with the reason of each.

The position of a document is its number in reading order: by part, then by row.
"""

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int64, UInt8

from pipeline.parts import Part

# Reasons of verdicts. The first one that holds counts. A code is an index of this list.
REASONS = (
    "dedup.target",  # the text of a target's document
    "dedup.catalog",  # a text that the catalog to add to already holds
    "dedup.shipped",  # the corpus lists the document as a copy
    "dedup.digest",  # the text of an earlier document
    "dedup.near_target",  # a near copy of a target's document
    "dedup.minhash",  # a near copy of an earlier document
)
TARGET, CATALOG, SHIPPED, DIGEST, NEAR_TARGET, MINHASH = range(len(REASONS))
NO_REASON = 255
DROPS_FILE = "drops.bin"  # records of `_DROP`, by position, without a header
_DROP = np.dtype([("position", "<i8"), ("code", "u1")])

Positions = Int64[np.ndarray, " documents"]
Codes = UInt8[np.ndarray, " documents"]


def write_drops(folder: Path, drops: Iterable[tuple[Positions, Codes]]) -> None:
    """Write documents to drop. Positions ascend, also from one item of `drops` to the next."""
    with (folder / DROPS_FILE).open("wb") as file:
        for positions, codes in drops:
            records = np.empty(len(positions), _DROP)
            records["position"], records["code"] = positions, codes
            file.write(records.tobytes())


def read_drops(parts: Sequence[Part], first: int, end: int) -> tuple[Positions, Codes]:
    """Return the dropped documents at positions from `first` to below `end`, ascending.

    No document may be in two of the parts. Memory: 9 bytes per document that is returned.
    """
    found = np.concatenate([np.empty(0, _DROP), *(_read(part, first, end) for part in parts)])
    found = found[np.argsort(found["position"])]
    return found["position"].astype(np.int64), found["code"].copy()


def _read(part: Part, first: int, end: int) -> np.ndarray:
    path = part.file(DROPS_FILE)
    records = range(path.stat().st_size // _DROP.itemsize)
    with path.open("rb") as file:

        def position(record: int) -> int:
            file.seek(record * _DROP.itemsize)
            return int.from_bytes(file.read(8), "little", signed=True)

        low = bisect_left(records, first, key=position)
        high = bisect_left(records, end, lo=low, key=position)
        file.seek(low * _DROP.itemsize)
        return np.frombuffer(file.read((high - low) * _DROP.itemsize), _DROP)
