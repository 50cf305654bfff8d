"""Batches: sequences read from the token store, as tensors."""

import hashlib
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from data_catalog.errors import UserError
from data_catalog.format.tokens import TokenStore
from trainer.sampling.permutation import derive, permutation_key, permute, walk
from trainer.sampling.plan import IntervalPlan


@dataclass(frozen=True)
class Batch:
    inputs: Int[Tensor, "sequences tokens"]
    labels: Int[Tensor, "sequences tokens"]  # already shifted; -100 at padding
    total: int  # unmasked labels that the loss is divided by: those of the whole global batch, of which this may be one rank's part

    def to(self, device: torch.device) -> "Batch":
        return Batch(
            self.inputs.to(device, non_blocking=True),
            self.labels.to(device, non_blocking=True),
            self.total,
        )

    def digest(self) -> str:
        return hashlib.sha256(self.inputs.numpy().tobytes()).hexdigest()[:16]


class Pool:
    """The sequences of one split, as the trainer draws them.

    Where less of a leaf is available than the store holds, its rows are numbered through what is available: whoever draws, sees no more.
    """

    def __init__(
        self,
        store: TokenStore,
        length: int,
        name: str,
        available: Int[np.ndarray, " leaves"] | None = None,
        seed: int = 0,
    ) -> None:
        """Cut `store` into sequences of `length` tokens.

        Args:
            available: how many sequences of each leaf may be drawn, those that the keyed order of `seed` puts first; None: all.

        Raises:
            UserError: there is not one sequence.
        """
        self.store, self.length, self.seed = store, length, seed
        self.stored = store.sequences(length)
        self.sequences = self.stored if available is None else available
        self._ends = np.cumsum(self.sequences)
        if not self.total:
            raise UserError(f"{name}: holds no sequence of even two tokens; give it more documents")

    @property
    def total(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def tokens(self) -> Float[np.ndarray, " leaves"]:
        """Unmasked labels of what is available of each leaf; where that is not all, its part of the leaf's, an expectation."""
        labels = self.store.labels()
        return labels * (self.sequences / np.maximum(self.stored, 1))

    def targets(
        self, leaves: Int[np.ndarray, " n"], rows: Int[np.ndarray, " n"]
    ) -> Int[np.ndarray, " n"]:
        """Unmasked labels of each sequence, without reading it."""
        return self.store.targets(leaves, self._stored_rows(leaves, rows), self.length)

    def read(
        self, leaves: Int[np.ndarray, " n"], rows: Int[np.ndarray, " n"], part: slice = slice(None)
    ) -> Batch:
        """The sequences of `part`; the loss's divisor counts all of them."""
        rows = self._stored_rows(leaves, rows)
        total = int(self.store.targets(leaves, rows, self.length).sum())
        inputs, labels = self.store.read(leaves[part], rows[part], self.length)
        return Batch(torch.from_numpy(inputs), torch.from_numpy(labels), total)

    def locate(
        self, numbers: Int[np.ndarray, " n"]
    ) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " n"]]:
        """Leaf and row of sequences numbered through the whole split."""
        leaves = np.searchsorted(self._ends, numbers, side="right")
        return leaves, numbers - (self._ends - self.sequences)[leaves]

    def in_order(
        self, seed: int, purpose: str, first: int, count: int
    ) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " n"]]:
        """Draws `first .. first + count` of an endless walk that visits every sequence once an epoch, in a keyed order."""
        return self.locate(walk(seed, purpose, first, count, self.total))

    def draw(
        self, weights: Float[np.ndarray, " leaves"], count: int, generator: np.random.Generator
    ) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " n"]]:
        """`count` independent draws: a leaf by its weight, then one of its sequences uniformly."""
        cumulated = np.cumsum(weights)
        points = np.minimum(
            generator.random(count) * cumulated[-1], np.nextafter(cumulated[-1], 0)
        )  # the product may round up to the end
        leaves = np.searchsorted(cumulated, points, side="right")
        rows = np.floor(generator.random(count) * self.sequences[leaves]).astype(np.int64)
        return leaves, np.minimum(rows, self.sequences[leaves] - 1)

    def _stored_rows(
        self, leaves: Int[np.ndarray, " n"], rows: Int[np.ndarray, " n"]
    ) -> Int[np.ndarray, " n"]:
        """Where the store has these rows of what is available."""
        scarce = np.flatnonzero(self.sequences[leaves] < self.stored[leaves])
        if not len(scarce):
            return rows
        owners, rows = leaves[scarce], rows.copy()
        keys = derive(permutation_key(self.seed, "available"), owners.astype(np.uint64))
        rows[scarce] = permute(
            rows[scarce].astype(np.uint64), self.stored[owners].astype(np.uint64), keys
        ).astype(np.int64)
        return rows


def interval_batches(
    pool: Pool,
    plan: IntervalPlan,
    steps: range,
    *,
    batch_sequences: int,
    rank: int,
    world: int,
    workers: int = 1,
    ahead: int = 2,
) -> Iterator[Batch]:
    """This rank's batches of `steps` (counted from the stage's beginning).

    Threads read ahead, and never past the stage: beyond it the weights are not chosen yet.

    Args:
        workers: threads that read.
        ahead: batches, at least 1, that are read before they are asked for.
    """

    def read(step: int) -> Batch:
        whole = plan.batch(step, batch_sequences, 0, 1)
        mine = plan.batch(step, batch_sequences, rank, world)
        part = slice(mine.start - whole.start, mine.stop - whole.start)
        return pool.read(plan.leaves[whole], plan.rows[whole], part)

    later = iter(steps)
    with ThreadPoolExecutor(workers) as readers:
        reading = deque(readers.submit(read, step) for step in islice(later, ahead))
        while reading:
            batch = reading.popleft().result()
            reading.extend(readers.submit(read, step) for step in islice(later, 1))
            yield batch
