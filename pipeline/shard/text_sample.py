"""A sample of a corpus that is read from a bounded number of places.

A block has about `BLOCK_ROWS` documents of one source part. The hash of its name and position
decides, so the sample depends neither on the order of the parts nor on who reads them. Large parts
have more blocks, so each document has about the same chance. A corpus of few blocks is read whole.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from heapq import nsmallest

import pyarrow.parquet as pq

from pipeline.parts import Part
from pipeline.source.stage import DOCUMENTS_FILE
from pipeline.verdicts import kept_characters

BLOCK_ROWS = 1_024
MINIMUM_BLOCKS = 512
SURPLUS = 4  # times the wanted characters, so that the documents of a block are a sample too


@dataclass(frozen=True)
class Blocks:
    """Row groups to read."""

    groups: dict[int, list[int]]
    """Row groups, ascending, by the position of their source part."""
    characters: int
    """Number of characters of their kept documents."""


def choose_blocks(sources: Sequence[Part], verdicts: Sequence[Part], characters: int) -> Blocks:
    """Choose at least `MINIMUM_BLOCKS` blocks with `SURPLUS` times as many characters, or all.

    Reads the footers of the chosen parts and the verdicts on them. Memory: 200 bytes per block
    that is read.

    Args:
        sources: The source parts.
        verdicts: The verdicts on each source part. Only characters of kept documents count.
        characters: Number of characters that are wanted.
    """
    wanted = MINIMUM_BLOCKS
    while True:
        chosen = nsmallest(wanted, _blocks(sources))
        blocks = _read_blocks(sources, verdicts, [(part, block) for _, part, block in chosen])
        if blocks.characters >= SURPLUS * characters or len(chosen) < wanted:
            return blocks
        wanted *= 2


def _blocks(sources: Sequence[Part]) -> Iterator[tuple[bytes, int, int]]:
    """Yield the hash, the part and the number within it of every block."""
    for number, part in enumerate(sources):
        for block in range(_block_count(part)):
            name = f"{part.name}\0{block}"
            yield hashlib.sha256(name.encode()).digest(), number, block


def _block_count(part: Part) -> int:
    return -(-part.account.kept.rows // BLOCK_ROWS)


def _read_blocks(
    sources: Sequence[Part], verdicts: Sequence[Part], chosen: Sequence[tuple[int, int]]
) -> Blocks:
    groups: dict[int, list[int]] = {}
    characters = 0
    for number, block in sorted(chosen):
        groups.setdefault(number, []).append(block)
    for number, blocks in groups.items():
        part = sources[number]
        file = pq.read_metadata(part.readable(DOCUMENTS_FILE))
        count = _block_count(part)
        groups[number] = [
            group
            for block in blocks
            for group in range(
                block * file.num_row_groups // count, (block + 1) * file.num_row_groups // count
            )
        ]
        characters += kept_characters(part, verdicts[number], groups[number])
    return Blocks(groups, characters)
