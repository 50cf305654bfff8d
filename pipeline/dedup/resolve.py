"""The choice of the near copies to drop: those of an earlier document that stays.

Documents are decided in reading order, so the verdicts do not depend on how the work was split. A
document that is near only to dropped ones stays: in a chain where a is near b and b is near c, but
a is not near c, only b is dropped.
"""

import glob
from array import array
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int64

from data_catalog.format.accounts import Account, Tally
from data_catalog.format.manifest import fingerprint
from data_catalog.place import Folder
from pipeline.config import Dedup
from pipeline.dedup.drops import MINHASH, Codes, Positions, write_drops
from pipeline.dedup.pairs import PAIRS_FILE
from pipeline.dedup.scratch import scratch_database, stream
from pipeline.parts import Part, make_part

# Versions of the output:
# 1: near copies of documents that stay.
VERSION = 1
_ORDERED = """
SELECT DISTINCT later, earlier FROM read_parquet($files, hive_partitioning = false)
ORDER BY later, earlier
"""

Pair = Int64[np.ndarray, " _pairs"]


def resolve_part(pairs: Sequence[Part], documents: int, folder: Folder, config: Dedup) -> Part:
    """Write the documents to drop because an earlier near copy stays (`drops.bin`).

    One pass over the pairs by later document. Memory: one bit per document of the corpus, and
    `dedup.memory_megabytes` of DuckDB, which sorts the pairs and spills to the folder for temporary
    files.

    Args:
        pairs: The part of `pairs_part` for each bucket.
        documents: Number of documents of the corpus.
        folder: The part's folder.
        config: The memory.
    """

    def make(out: Path) -> Account:
        files = [glob.escape(str(part.file(PAIRS_FILE))) for part in pairs]
        with scratch_database(config.memory_megabytes) as connection:
            ordered = (
                (batch["later"].to_numpy(), batch["earlier"].to_numpy())
                for batch in stream(connection, _ORDERED, {"files": files})
            )
            write_drops(out, later_copies(ordered, documents))
        amount = Tally(rows=documents)
        return Account(read=amount, kept=amount)

    key = fingerprint("resolve", VERSION, documents, [part.fingerprint for part in pairs])
    return make_part(folder, key, make)


def later_copies(
    batches: Iterable[tuple[Pair, Pair]], documents: int
) -> Iterator[tuple[Positions, Codes]]:
    """Yield the documents that are near an earlier one that stays, ascending.

    Args:
        batches: Positions of the later and the earlier document of each pair, ascending.
        documents: Number of documents, more than any position.
    """
    is_dropped = bytearray(documents // 8 + 1)  # one bit per document
    last = -1  # the last dropped document: its other pairs change nothing
    for later_ones, earlier_ones in batches:
        dropped = array("q")
        for later, earlier in zip(later_ones.tolist(), earlier_ones.tolist(), strict=True):
            if later != last and not is_dropped[earlier >> 3] >> (earlier & 7) & 1:
                is_dropped[later >> 3] |= 1 << (later & 7)
                dropped.append(later)
                last = later
        positions = np.array(dropped, np.int64)
        yield positions, np.full(len(positions), MINHASH, np.uint8)
