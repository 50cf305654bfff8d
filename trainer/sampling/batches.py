"""Batches: sequences of the token store as tensors."""

import hashlib
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from operator import itemgetter

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from data_catalog.errors import UserError
from data_catalog.format.tokens import IGNORED, TokenStore
from trainer.distributed import process_slice
from trainer.sampling.packing import packed_rows
from trainer.sampling.permutation import derive, permutation_key, permute, walk
from trainer.sampling.plan import IntervalPlan

# Batches are cut to a multiple of this number of tokens, for little padding and few shapes.
WIDTH_STEP = 64
PACKED_WIDTH_STEP = 8  # the same for packed batches, whose shapes differ anyway
EXPECTED_DRAWS = 2**16  # draws of all processes between two announcements to a remote store


@dataclass(frozen=True)
class Batch:
    """A global batch, or the slice of one process."""

    inputs: Int[Tensor, "sequences tokens"]
    """Token ids."""
    labels: Int[Tensor, "sequences tokens"]
    """Token ids shifted by one. Masked ones are -100."""
    total: int
    """Number of unmasked labels of the whole global batch, by which the loss is divided."""
    owners: Int[Tensor, "sequences tokens"] | None = None
    """Number of the sequence at each place of a packed batch, and -1 where there is none. Its rows
    hold several sequences, or one each in another order. None: row i is sequence i."""

    def to(self, device: torch.device) -> "Batch":
        """Return the batch on `device`."""
        return self._each(lambda values: values.to(device, non_blocking=True))

    def cut(self) -> "Batch":
        """Return the batch without the columns behind its last label, up to a multiple of 64.

        Packed batches are cut at a multiple of 8.
        """
        used = (self.labels != IGNORED).any(0).nonzero()
        longest = int(used[-1]) + 1 if len(used) else 1
        step = WIDTH_STEP if self.owners is None else PACKED_WIDTH_STEP
        width = -(-longest // step) * step
        return self._each(lambda values: values[:, :width].contiguous())

    def split(self, rows: int) -> list["Batch"]:
        """Return parts of up to `rows` rows. A batch without rows has no parts."""
        parts = range(0, len(self.inputs), rows)
        return [self._each(itemgetter(slice(first, first + rows))) for first in parts]

    def packed(self, together: bool) -> "Batch":
        """Return the same sequences with less padding, or this batch if it is packed.

        The rows are not longer than before.

        Args:
            together: whether rows hold several sequences. If not, the rows are only sorted by
                length, so that parts of the batch can be cut.
        """
        if self.owners is not None or not len(self.labels):
            return self
        width = self.labels.shape[1]
        ends = (self.labels != IGNORED) * torch.arange(1, width + 1, device=self.labels.device)
        sizes = ends.amax(1).clamp_min(1).cpu().numpy()
        rows = (
            packed_rows(sizes, width)
            if together
            else [[row] for row in np.argsort(sizes, kind="stable").tolist()]
        )
        inputs = self.inputs.new_zeros(len(rows), width)
        labels, owners = torch.full_like(inputs, IGNORED), torch.full_like(inputs, -1)
        for row, sequences in enumerate(rows):
            first = 0
            for sequence in sequences:
                size = int(sizes[sequence])
                place = slice(first, first + size)
                inputs[row, place] = self.inputs[sequence, :size]
                labels[row, place] = self.labels[sequence, :size]
                owners[row, place] = sequence
                first += size
        return Batch(inputs, labels, self.total, owners)

    def sums(self, values: Float[Tensor, "rows tokens"]) -> Float[Tensor, " sequences"]:
        """Return the sum of each sequence's values, which are 0 where it has no label."""
        if self.owners is None:
            return values.sum(1)
        owners = self.owners.cpu().clamp_min(0).flatten()
        sums = torch.zeros(int(owners.max()) + 1, dtype=torch.float64)
        # On the CPU, where the order of the sum is fixed.
        sums.index_add_(0, owners, values.cpu().double().flatten())
        return sums.to(values.device, values.dtype)

    def _each(self, change: Callable[[Tensor], Tensor]) -> "Batch":
        """Return the batch with changed tensors."""
        owners = None if self.owners is None else change(self.owners)
        return Batch(change(self.inputs), change(self.labels), self.total, owners)

    def digest(self) -> str:
        """Return a short hash of the inputs."""
        return hashlib.sha256(self.inputs.numpy().tobytes()).hexdigest()[:16]


class Pool:
    """The sequences of one split that the trainer can draw.

    If not all stored sequences of a leaf are available, rows count only the available ones.
    """

    def __init__(
        self,
        store: TokenStore,
        length: int,
        name: str,
        available: Int[np.ndarray, " leaves"] | None = None,
        seed: int = 0,
    ) -> None:
        """Split `store` into sequences.

        Args:
            store: the tokens.
            length: labels per sequence.
            name: name of the split in error messages.
            available: maximum number of sequences of each leaf that can be drawn: the first ones in
                the keyed order of `seed`. None: all.
            seed: seed of the run.

        Raises:
            UserError: There is no sequence.
        """
        self.store, self.length, self.seed = store, length, seed
        self.stored = store.sequences(length)
        self.sequences = self.stored if available is None else available
        self._ends = np.cumsum(self.sequences)
        if not self.total:
            raise UserError(f"{name}: No document has two tokens or more. Add longer documents.")

    @property
    def total(self) -> int:
        """Number of available sequences."""
        return int(self._ends[-1]) if len(self._ends) else 0

    def tokens(self) -> Float[np.ndarray, " leaves"]:
        """Return the number of available unmasked labels per leaf.

        If only some sequences of a leaf are available, this is an expected value.
        """
        labels = self.store.labels()
        return labels * (self.sequences / np.maximum(self.stored, 1))

    def targets(
        self, leaves: Int[np.ndarray, " n"], rows: Int[np.ndarray, " n"]
    ) -> Int[np.ndarray, " n"]:
        """Return the number of unmasked labels of each sequence, without reading it."""
        return self.store.targets(leaves, self._stored_rows(leaves, rows), self.length)

    def read(
        self, leaves: Int[np.ndarray, " n"], rows: Int[np.ndarray, " n"], part: slice = slice(None)
    ) -> Batch:
        """Read the sequences of `part`.

        Args:
            leaves: leaf of every sequence of the global batch.
            rows: row of each inside its leaf.
            part: this process's slice of them. The batch's `total` counts all of them.
        """
        rows = self._stored_rows(leaves, rows)
        total = int(self.store.targets(leaves, rows, self.length).sum())
        inputs, labels = self.store.read(leaves[part], rows[part], self.length)
        return Batch(torch.from_numpy(inputs), torch.from_numpy(labels), total)

    @property
    def is_remote(self) -> bool:
        """True if sequences are fetched from another machine."""
        return self.store.remote is not None

    def expect(self, leaves: Int[np.ndarray, " n"], rows: Int[np.ndarray, " n"]) -> None:
        """Begin to fetch sequences that will be read next, in this order, if they are remote."""
        if self.is_remote:
            self.store.expect(leaves, self._stored_rows(leaves, rows), self.length)

    def locate(
        self, numbers: Int[np.ndarray, " n"]
    ) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " n"]]:
        """Return leaf and row of sequences, given their numbers in the whole split."""
        leaves = np.searchsorted(self._ends, numbers, side="right")
        return leaves, numbers - (self._ends - self.sequences)[leaves]

    def in_order(
        self, seed: int, purpose: str, first: int, count: int
    ) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " n"]]:
        """Return leaf and row of part of an endless walk over all sequences; see `walk`."""
        return self.locate(walk(seed, purpose, first, count, self.total))

    def draw(
        self, weights: Float[np.ndarray, " leaves"], count: int, generator: np.random.Generator
    ) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " n"]]:
        """Draw `count` sequences independently: a leaf by its weight, then a row uniformly."""
        cumulative = np.cumsum(weights)
        # The product may round up to the end.
        points = np.minimum(
            generator.random(count) * cumulative[-1], np.nextafter(cumulative[-1], 0)
        )
        leaves = np.searchsorted(cumulative, points, side="right")
        rows = np.floor(generator.random(count) * self.sequences[leaves]).astype(np.int64)
        return leaves, np.minimum(rows, self.sequences[leaves] - 1)

    def _stored_rows(
        self, leaves: Int[np.ndarray, " n"], rows: Int[np.ndarray, " n"]
    ) -> Int[np.ndarray, " n"]:
        """Return the rows in the store of available rows."""
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
    """Yield this process's batches of an interval.

    Threads read ahead, but never beyond the interval, because later weights are not chosen yet.

    Args:
        pool: the corpus.
        plan: plan of the interval.
        steps: steps to read, counted from the beginning of the interval.
        batch_sequences: sequences per global batch.
        rank: number of this process.
        world: number of processes.
        workers: number of reading threads.
        ahead: number of batches, at least 1, that are read before they are requested.
    """

    def read(step: int) -> Batch:
        draws = plan.read(plan.batch(step, batch_sequences, 0, 1))
        own = process_slice(batch_sequences, rank, world)
        return pool.read(draws.leaves, draws.rows, own)

    def expect(first: int) -> None:
        """Announce the draws until the announcement after the next."""
        expected = [
            plan.read(plan.batch(step, batch_sequences, rank, world))
            for step in range(first, min(first + 2 * window, steps.stop))
        ]
        leaves, rows = ([getattr(draws, name) for draws in expected] for name in ("leaves", "rows"))
        pool.expect(np.concatenate(leaves), np.concatenate(rows))

    window = max(EXPECTED_DRAWS // batch_sequences, 1)
    remaining = iter(steps)
    with ThreadPoolExecutor(workers) as readers:

        def begin(step: int) -> Future[Batch]:
            if pool.is_remote and (step - steps.start) % window == 0:
                expect(step)
            return readers.submit(read, step)

        reading = deque(begin(step) for step in islice(remaining, ahead))
        while reading:
            batch = reading.popleft().result()
            reading.extend(begin(step) for step in islice(remaining, 1))
            yield batch
