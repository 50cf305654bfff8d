"""From weights to sequences: the plan of an interval.

A plan maps every global sequence number to a sequence of a leaf. Weights change only between
intervals. In an interval, systematic sampling within the bounds of the run determines the number
of sequences per leaf, and a keyed permutation determines their order. The sequences of a leaf have
a new keyed order in every epoch. The token stream is therefore a function of the seed and the
weight log, and its state is the number of an interval and one counter per leaf.
"""

from dataclasses import dataclass
from threading import Lock

import numpy as np
from jaxtyping import Float, Int

from trainer.distributed import process_slice
from trainer.sampling.bounds import DrawBounds
from trainer.sampling.permutation import derive, generator, permutation_key, permute

BLOCK_DRAWS = 2**18  # draws that are computed at once
KEPT_BLOCKS = 2  # of which a batch may need both


@dataclass(frozen=True)
class Draws:
    """Some draws of an interval, in the order of global sequence numbers."""

    leaves: Int[np.ndarray, " draws"]
    """Leaf of each draw."""
    rows: Int[np.ndarray, " draws"]
    """Row of each drawn sequence inside its leaf."""
    epochs: Int[np.ndarray, " draws"]
    """Number of earlier epochs over the leaf."""


class IntervalPlan:
    """Every draw of an interval. They are computed in blocks when they are first read.

    Memory: about 350 bytes per draw of a block, and 30 bytes per leaf, for an interval of any
    length. Reading in order is fast. Going back computes the leaves of all earlier draws again.
    Threads may read at once.
    """

    def __init__(
        self,
        interval: int,
        counts: Int[np.ndarray, " leaves"],
        sequences: Int[np.ndarray, " leaves"],
        used: Int[np.ndarray, " leaves"],
        *,
        seed: int,
        shares: Float[np.ndarray, " leaves"],
        moved: float = 0.0,
    ) -> None:
        """Make a plan.

        Args:
            interval: number of the interval, from 0.
            counts: number of draws per leaf.
            sequences: number of sequences per leaf.
            used: number of draws per leaf in all earlier intervals.
            seed: seed of the run.
            shares: shares of the draws: those of the weights, within the bounds. They sum to 1.
            moved: share of the draws that the bounds moved to other leaves.
        """
        self.interval, self.shares, self.moved = interval, shares, moved
        self.draws = int(counts.sum())
        self._counts, self._sequences, self._seed = counts, sequences, seed
        self._ends = np.cumsum(counts)
        self._key = permutation_key(seed, "order", interval)
        self._lock = Lock()
        self._blocks: dict[int, Draws] = {}
        self._first_used = used
        self._next, self._used = 0, used  # a block, and the number of draws per leaf before it

    def batch(self, step: int, batch_sequences: int, rank: int, world: int) -> slice:
        """Return a process's slice of a global batch, as a slice of the draws.

        The slices of all processes, in rank order, are the global batch, so that the stream is the
        same for every number of processes.

        Args:
            step: number of the step inside the interval, from 0.
            batch_sequences: sequences per global batch.
            rank: number of the process.
            world: number of processes.
        """
        first = step * batch_sequences
        own = process_slice(batch_sequences, rank, world)
        return slice(first + own.start, first + own.stop)

    def read(self, part: slice = slice(None)) -> Draws:
        """Return some draws, by default all of them."""
        first, last, _ = part.indices(self.draws)
        pieces = []
        for number in range(first // BLOCK_DRAWS, -(-last // BLOCK_DRAWS)):
            start, block = number * BLOCK_DRAWS, self._block(number)
            inside = slice(max(first - start, 0), last - start)
            pieces.append((block.leaves[inside], block.rows[inside], block.epochs[inside]))
        if len(pieces) == 1:
            return Draws(*pieces[0])
        columns = zip(*pieces, strict=True) if pieces else [()] * 3
        return Draws(*(np.concatenate([np.zeros(0, np.int64), *column]) for column in columns))

    def counts(self, draws: int) -> Int[np.ndarray, " leaves"]:
        """Return the number of draws per leaf among the first `draws` draws."""
        if draws == self.draws:
            return self._counts
        counts = np.zeros_like(self._counts)
        for first in range(0, draws, BLOCK_DRAWS):
            counts += self._counted(self._leaves(first, min(first + BLOCK_DRAWS, draws)))
        return counts

    def _block(self, number: int) -> Draws:
        with self._lock:
            if number in self._blocks:
                return self._blocks[number]
            if number < self._next:
                self._next, self._used = 0, self._first_used
            while True:
                first = self._next * BLOCK_DRAWS
                leaves = self._leaves(first, min(first + BLOCK_DRAWS, self.draws))
                before, self._used = self._used, self._used + self._counted(leaves)
                self._next += 1
                if self._next > number:
                    break
            block = Draws(leaves, *next_rows(leaves, self._sequences, before, self._seed))
            self._blocks = {**dict(list(self._blocks.items())[1 - KEPT_BLOCKS :]), number: block}
            return block

    def _leaves(self, first: int, last: int) -> Int[np.ndarray, " draws"]:
        numbers = np.arange(first, last, dtype=np.uint64)
        places = permute(numbers, np.uint64(self.draws), self._key).astype(np.int64)
        return np.searchsorted(self._ends, places, side="right")

    def _counted(self, leaves: Int[np.ndarray, " draws"]) -> Int[np.ndarray, " leaves"]:
        return np.bincount(leaves, minlength=len(self._counts))


@dataclass(frozen=True)
class Drawn:
    """The state that the next draws of a run depend on, apart from the weights."""

    used: Int[np.ndarray, " leaves"]
    """Number of draws per leaf in all earlier intervals."""
    bounds: DrawBounds | None = None
    """Bounds of the whole run."""


def leaf_weights(
    sampling: Float[np.ndarray, " basis"], matrix: Float[np.ndarray, "basis leaves"]
) -> Float[np.ndarray, " leaves"]:
    """Return `sum_i sampling_i matrix_i`, summed in a fixed order.

    A matrix product could differ in the last bit between machines.
    """
    leaves = np.zeros(matrix.shape[1])
    for weight, row in zip(sampling.tolist(), matrix, strict=True):
        if weight > 0:
            leaves += weight * row
    return leaves


def interval_counts(
    weights: Float[np.ndarray, " leaves"], draws: int, seed: int, interval: int
) -> Int[np.ndarray, " leaves"]:
    """Return the number of draws per leaf: systematic sampling with one random offset u.

    With cumulative weights c, `counts_i = floor(c_i draws + u) - floor(c_{i-1} draws + u)`. The
    counts are unbiased, differ from `weights_i * draws` by less than one, and sum to `draws`. A
    leaf of weight zero is never drawn.

    Args:
        weights: weight of each leaf, on any scale.
        draws: number of draws.
        seed: seed of the run.
        interval: number of the interval.
    """
    # The offset is coarse enough for draws + offset to be exact.
    offset = float(generator(seed, "stage", interval).integers(2**20)) / 2**20
    cumulated = np.cumsum(weights)
    edges = np.floor(cumulated / cumulated[-1] * draws + offset).astype(np.int64)
    return np.diff(edges, prepend=0)


def draw_interval(
    interval: int,
    weights: Float[np.ndarray, " leaves"],
    sequences: Int[np.ndarray, " leaves"],
    used: Int[np.ndarray, " leaves"],
    *,
    draws: int,
    seed: int,
    bounds: DrawBounds | None = None,
) -> IntervalPlan:
    """Return the plan of an interval.

    Args:
        interval: number of the interval.
        weights: share of the draws of each leaf (see `Fill.draws`), on any scale; zero for leaves
            without sequences.
        sequences: number of sequences per leaf.
        used: number of draws per leaf in all earlier intervals.
        draws: number of draws: steps times global batch. With bounds, the last interval of a run
            counts only the steps that it takes.
        seed: seed of the run.
        bounds: bounds of the whole run.

    Raises:
        UserError: The bounds leave too few sequences for the interval.
        ValueError: A leaf without sequences has weight.
    """
    left = bounds.left(used) if bounds else None
    shares = left.project(weights, draws) if left else weights
    counts = interval_counts(shares, draws, seed, interval)
    if left:
        counts = left.settle(counts, shares)
    moved = 0.0
    if shares is not weights:
        moved = float(np.abs(shares / shares.sum() - weights / weights.sum()).sum()) / 2
    if counts[sequences == 0].any():
        raise ValueError("draw_interval: a leaf without sequences has weight")
    return IntervalPlan(
        interval, counts, sequences, used, seed=seed, shares=shares / shares.sum(), moved=moved
    )


def next_rows(
    leaves: Int[np.ndarray, " draws"],
    sequences: Int[np.ndarray, " leaves"],
    used: Int[np.ndarray, " leaves"],
    seed: int,
) -> tuple[Int[np.ndarray, " draws"], Int[np.ndarray, " draws"]]:
    """Return the row and the epoch of each draw, if `leaves` are the next leaves to draw from.

    Args:
        leaves: leaf of each draw, in order.
        sequences: number of sequences per leaf.
        used: number of draws per leaf in all earlier intervals.
        seed: seed of the run.
    """
    uses = used[leaves] + _occurrence(leaves)
    epochs, places = np.divmod(uses, sequences[leaves])
    keys = derive(
        derive(permutation_key(seed, "leaf"), leaves.astype(np.uint64)), epochs.astype(np.uint64)
    )
    rows = permute(places.astype(np.uint64), sequences[leaves].astype(np.uint64), keys)
    return rows.astype(np.int64), epochs


def _occurrence(leaves: Int[np.ndarray, " draws"]) -> Int[np.ndarray, " draws"]:
    """Return for each draw the number of earlier draws of the same leaf."""
    order = np.argsort(leaves, kind="stable")
    ordered = leaves[order]
    result = np.empty_like(leaves)
    result[order] = np.arange(len(leaves)) - np.searchsorted(ordered, ordered, side="left")
    return result
