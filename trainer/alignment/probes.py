"""The sequences that basis members are measured on, drawn from the training pool for each update.

They are not held-out text, because the gradient of memorised documents must shrink for weight to
move away from an over-used domain.
"""

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
from jaxtyping import Int

from trainer.config import Train
from trainer.distributed import process_slice
from trainer.inputs import Inputs
from trainer.model.engine import Engine
from trainer.sampling.batches import Batch
from trainer.sampling.permutation import generator


def member_probes(config: Train, inputs: Inputs, interval: int) -> list[Callable[[], Batch]]:
    """Return functions that read one minibatch per basis member from its distribution."""

    def read(member: int) -> Batch:
        return inputs.corpus.read(*_draw(config, inputs, interval, member))

    return [partial(read, member) for member in range(len(inputs.basis.names))]


def pooled_probes(
    engine: Engine, config: Train, inputs: Inputs, interval: int
) -> Iterator[tuple[Int[np.ndarray, " sequences"], Batch]]:
    """Yield the sequences of all members in batches of the training size, with each one's leaf.

    Each batch holds this process's slice. The number of batches is the same on every process. The
    loss of a batch is divided by the number of labels in that batch alone.
    """
    team, size = engine.team, config.training.batch_sequences
    draws = [_draw(config, inputs, interval, member) for member in range(len(inputs.basis.names))]
    leaves, rows = (np.concatenate(column) for column in zip(*draws, strict=True))
    for first in range(0, len(leaves), size):
        of_batch = slice(first, first + size)
        count = len(leaves[of_batch])
        own = process_slice(count, team.rank, team.world)
        yield leaves[of_batch][own], inputs.corpus.read(leaves[of_batch], rows[of_batch], own)


def members_probe(
    engine: Engine, config: Train, inputs: Inputs, interval: int
) -> Callable[[], float]:
    """Return the backward pass of the sum of all members' losses.

    Its gradient is the direction of DoGE if no target is used (Fan, Pagliardini & Jaggi 2023). The
    sequences are those of `member_probes`, so that a member's own gradient can be subtracted.
    `backward` returns this process's share of the mean of the losses.
    """
    team, probes = engine.team, member_probes(config, inputs, interval)

    def backward() -> float:
        share = 0.0
        for number, probe in enumerate(probes, start=1):
            batch = probe()
            count = len(batch.inputs)
            own = process_slice(count, team.rank, team.world)
            part = Batch(batch.inputs[own], batch.labels[own], batch.total)
            share += float(engine.backward(part, shared=number == len(probes))[0])
        return share / len(probes)

    return backward


def _draw(
    config: Train, inputs: Inputs, interval: int, member: int
) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " n"]]:
    draws = generator(config.seed, "probe", interval, member)
    shares = inputs.fill.draws(inputs.basis.matrix[member])
    return inputs.corpus.draw(shares, config.mixture.basis_sequences, draws)
