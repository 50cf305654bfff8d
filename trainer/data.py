"""Batches: sequences read from the token store, as tensors."""

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from data_catalog.errors import UserError
from data_catalog.tokens import TokenStore
from trainer.permutation import key, permute
from trainer.plan import StagePlan


@dataclass(frozen=True)
class Batch:
    inputs: Int[Tensor, "sequences tokens"]
    labels: Int[Tensor, "sequences tokens"]  # already shifted; -100 at padding
    total: int  # unmasked labels that the loss is divided by: those of the whole global batch, of which this may be one rank's part

    def to(self, device: torch.device) -> "Batch":
        return Batch(self.inputs.to(device, non_blocking=True), self.labels.to(device, non_blocking=True), self.total)

    def digest(self) -> str:
        return hashlib.sha256(self.inputs.numpy().tobytes()).hexdigest()[:16]


class Pool:
    """The sequences of one split, as the trainer draws them."""

    def __init__(self, store: TokenStore, length: int, name: str) -> None:
        """Cut `store` into sequences of `length` tokens.

        Raises:
            UserError: there is not one sequence.
        """
        self.store, self.length = store, length
        self.sequences = store.sequences(length)
        self._ends = np.cumsum(self.sequences)
        if not self.total:
            raise UserError(f"{name}: holds no sequence of even two tokens; give it more documents")

    @property
    def total(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def targets(self, leaves: Int[np.ndarray, " n"], rows: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
        """Unmasked labels of each sequence, without reading it."""
        return self.store.targets(leaves, rows, self.length)

    def read(self, leaves: Int[np.ndarray, " n"], rows: Int[np.ndarray, " n"], part: slice = slice(None)) -> Batch:
        """The sequences of `part`; the loss's divisor counts all of them."""
        total = int(self.targets(leaves, rows).sum())
        inputs, labels = self.store.read(leaves[part], rows[part], self.length)
        return Batch(torch.from_numpy(inputs), torch.from_numpy(labels), total)

    def locate(self, numbers: Int[np.ndarray, " n"]) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " n"]]:
        """Leaf and row of sequences numbered through the whole split."""
        leaves = np.searchsorted(self._ends, numbers, side="right")
        return leaves, numbers - (self._ends - self.sequences)[leaves]

    def in_order(self, seed: int, purpose: str, first: int, count: int) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " n"]]:
        """Draws `first .. first + count` of an endless walk that visits every sequence once an epoch, in a keyed order."""
        epochs, places = np.divmod(np.arange(first, first + count), self.total)
        keys = np.array([key(seed, purpose, int(epoch)) for epoch in epochs], np.uint64)
        return self.locate(permute(places.astype(np.uint64), np.uint64(self.total), keys).astype(np.int64))

    def draw(
        self, weights: Float[np.ndarray, " leaves"], count: int, generator: np.random.Generator
    ) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " n"]]:
        """`count` independent draws: a leaf by its weight, then one of its sequences uniformly."""
        cumulated = np.cumsum(weights)
        points = np.minimum(generator.random(count) * cumulated[-1], np.nextafter(cumulated[-1], 0))  # the product may round up to the end
        leaves = np.searchsorted(cumulated, points, side="right")
        rows = np.floor(generator.random(count) * self.sequences[leaves]).astype(np.int64)
        return leaves, np.minimum(rows, self.sequences[leaves] - 1)


def stage_batches(pool: Pool, plan: StagePlan, steps: range, *, batch_sequences: int, rank: int, world: int) -> Iterator[Batch]:
    """This rank's batches of `steps` (counted from the stage's beginning).

    A thread reads one step ahead, and never past the stage: beyond it the weights are not chosen yet.
    """

    def read(step: int) -> Batch:
        whole = plan.batch(step, batch_sequences, 0, 1)
        mine = plan.batch(step, batch_sequences, rank, world)
        part = slice(mine.start - whole.start, mine.stop - whole.start)
        return pool.read(plan.leaves[whole], plan.rows[whole], part)

    with ThreadPoolExecutor(1) as reader:
        ahead = reader.submit(read, steps[0]) if len(steps) else None
        for step in steps:
            batch = ahead.result() if ahead is not None else read(step)
            ahead = reader.submit(read, step + 1) if step + 1 in steps else None
            yield batch
