"""Ranges of whole leaves, which divide the sort: one file per part and range between its halves.

The number of ranges follows from the size of the corpus, not from the number of workers or of
domains. A range has several small top-level domains, or a share of a large one.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
from jaxtyping import Int

from data_catalog.format.accounts import Account
from data_catalog.format.layout import Levels
from data_catalog.format.manifest import fingerprint
from data_catalog.place import Folder
from pipeline.config import Store
from pipeline.parts import Part, make_part
from pipeline.verdicts import kept_key, read_verdicts

# Versions of the output:
# 1: bounds from characters and documents per leaf.
VERSION = 1
RANGES_FILE = "ranges.json"
RANGE_FILES = 4  # stored files of a range, about: 1 GB with the default of `store.file_megabytes`
MINIMUM_COLUMN_BYTES = 100_000  # a part's mean share of a range, below which reads are too small
MAXIMUM_COUNTED_PARTS = 1_000  # parts whose leaves are counted. Others are taken to be like them.
# Memory of a document, estimated before it is tokenized: its text and tokens, its other columns.
_CHARACTER_BYTES, _DOCUMENT_BYTES = 1.5, 1_000
_MEGABYTE = 2**20


@dataclass(frozen=True)
class TopRange:
    """The leaves `first <= leaf < last` of one top-level domain, which one range has."""

    top: int
    number: int
    """Number of the range."""
    order: int
    """Number of this range among those of the top-level domain."""
    first: int
    last: int

    @property
    def name(self) -> str:
        return f"{self.top:04d}-{self.order:04d}" if self.order else f"{self.top:04d}"


@dataclass(frozen=True)
class Ranges:
    """Consecutive ranges of leaves."""

    bounds: tuple[int, ...]
    """The first leaf of each range, ascending from 0, and the number of leaves."""

    def of_tops(self, levels: Levels) -> list[list[TopRange]]:
        """Return the ranges of each top-level domain, in the order of their leaves."""
        span = levels.span(levels.granularities[0])
        return [
            [
                TopRange(top, number, order, first, last)
                for order, (number, first, last) in enumerate(self._within(start, start + span))
            ]
            for top, start in enumerate(range(0, levels.leaves, span))
        ]

    def _within(self, start: int, end: int) -> list[tuple[int, int, int]]:
        """Return the number, first leaf and last leaf of each range between two leaves."""
        shares = [
            (number, max(first, start), min(last, end))
            for number, (first, last) in enumerate(pairwise(self.bounds))
        ]
        return [share for share in shares if share[1] < share[2]]


def plan_ranges(
    sources: Sequence[Part],
    embedded: Sequence[Part],
    finals: Sequence[Part],
    assigned: Sequence[Part],
    folder: Folder,
    config: Store,
    levels: Levels,
) -> Part:
    """Choose the ranges from the number of characters in each leaf, and write `ranges.json`.

    Of many parts, `MAXIMUM_COUNTED_PARTS` are counted, which the hash of their names chooses. The
    sizes are estimates, because tokens are not known yet. Memory: 8 bytes per leaf, and 30 bytes
    per document of a part.

    Args:
        sources: The source parts.
        embedded: The verdicts that keep the documents with an embedding, for each source part.
        finals: The verdicts before the sort, for each source part.
        assigned: One leaf per document that `embedded` keeps, for each source part.
        folder: The part's folder.
        config: The size of a stored file.
        levels: Levels of the tree.
    """
    counted = _sample([part.name for part in sources])
    most = max(RANGE_FILES * config.file_megabytes * _MEGABYTE, MINIMUM_COLUMN_BYTES * len(sources))
    rows = [part.account.kept.rows for part in assigned]
    total, known = sum(rows), sum(rows[number] for number in counted)

    def make(out: Path) -> Account:
        sizes = np.zeros(levels.leaves, np.int64)
        for i in counted:
            sizes += _leaf_sizes(sources[i], embedded[i], finals[i], assigned[i], levels.leaves)
        if known:
            sizes = (sizes * (total / known)).astype(np.int64)
        bounds = range_bounds(sizes, levels.span(levels.granularities[0]), most)
        (out / RANGES_FILE).write_text(json.dumps({"bounds": bounds}), encoding="utf-8")
        return Account()

    inputs = [
        [
            kept_key(sources[i], embedded[i]),
            kept_key(sources[i], finals[i]),
            assigned[i].fingerprint,
        ]
        for i in counted
    ]
    key = fingerprint("ranges", VERSION, levels.granularities, most, total, inputs)
    return make_part(folder, key, make)


def read_ranges(part: Part) -> Ranges:
    """Return the ranges that `plan_ranges` chose."""
    content = json.loads(part.file(RANGES_FILE).read_text(encoding="utf-8"))
    return Ranges(tuple(content["bounds"]))


def range_bounds(sizes: Int[np.ndarray, " leaves"], span: int, most: int) -> list[int]:
    """Return the first leaf of each range and, at the end, the number of leaves.

    A range has about `most` bytes or less. It has whole top-level domains, or a share of one with
    more than `most` bytes. A single leaf can exceed `most`.

    Args:
        sizes: Bytes of each leaf.
        span: Number of leaves of a top-level domain.
        most: Bytes of a range.
    """
    bounds, size = [0], 0
    for first in range(0, len(sizes), span):
        top = sizes[first : first + span]
        amount = int(top.sum())
        if amount and bounds[-1] < first and (size + amount > most):
            bounds.append(first)
            size = 0
        if amount > most:
            bounds += [first + cut for cut in _cuts(top, most)]
        size += amount
    return [*bounds, len(sizes)]


def _cuts(sizes: Int[np.ndarray, " leaves"], most: int) -> list[int]:
    """Return the leaves, except 0, at which ranges of equal sizes, at most about `most`, begin."""
    before = np.cumsum(sizes)
    amount = int(before[-1])
    shares = -(-amount // most)
    wanted = [amount * share // shares for share in range(1, shares)]
    cuts = np.unique(np.searchsorted(before, wanted) + 1)
    return [cut for cut in cuts.tolist() if before[cut - 1] < amount]


def _sample(names: Sequence[str]) -> list[int]:
    """Return the positions of at most `MAXIMUM_COUNTED_PARTS` names, ascending by name."""
    if len(names) > MAXIMUM_COUNTED_PARTS:
        digests = {name: hashlib.sha256(name.encode()).digest() for name in names}
        kept = set(sorted(names, key=digests.__getitem__)[:MAXIMUM_COUNTED_PARTS])
    else:
        kept = set(names)
    return sorted((i for i, name in enumerate(names) if name in kept), key=names.__getitem__)


def _leaf_sizes(
    source: Part, embedded: Part, final: Part, assigned: Part, leaves: int
) -> Int[np.ndarray, " leaves"]:
    """Return the estimated bytes in each leaf of the documents that `final` keeps."""
    verdicts = read_verdicts(source, embedded)
    placed = pc.is_null(verdicts["reason"]).to_numpy()
    stored = pc.is_null(read_verdicts(source, final)["reason"]).to_numpy()[placed]
    leaf = pq.read_table(assigned.file("leaves.parquet"), columns=["leaf"])["leaf"].to_numpy()
    characters = verdicts["characters"].to_numpy()[placed][stored]
    sizes = np.bincount(leaf[stored], characters, leaves) * _CHARACTER_BYTES
    sizes += np.bincount(leaf[stored], minlength=leaves) * _DOCUMENT_BYTES
    return sizes.astype(np.int64)
