"""The sequences that basis members are measured on: fresh ones from the training pool per update.

They are not held-out text, because the shrinking gradient of memorised documents is what moves
weight away from an over-used domain.
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
    """The same sequences as one sample: its batches, of the size of training's, each with the leaf of every sequence.

    A batch holds this process's part of it, and as many come on every process. Its loss is divided by the labels of that batch alone.
    """
    team, size = engine.team, config.training.batch_sequences
    draws = [_draw(config, inputs, interval, member) for member in range(len(inputs.basis.names))]
    leaves, rows = (np.concatenate(column) for column in zip(*draws, strict=True))
    for first in range(0, len(leaves), size):
        of_batch = slice(first, first + size)
        count = len(leaves[of_batch])
        mine = process_slice(count, team.rank, team.world)
        yield leaves[of_batch][mine], inputs.corpus.read(leaves[of_batch], rows[of_batch], mine)


def members_probe(
    engine: Engine, config: Train, inputs: Inputs, interval: int
) -> Callable[[], float]:
    """The backward pass on the mean of all members' losses: the direction of DoGE where no target is named (Fan et al. 2024)."""
    team, probes = engine.team, member_probes(config, inputs, interval)

    def backward() -> float:
        share = 0.0
        for number, probe in enumerate(probes, start=1):
            batch = probe()
            count = len(batch.inputs)
            mine = process_slice(count, team.rank, team.world)
            ours = Batch(batch.inputs[mine], batch.labels[mine], batch.total * len(probes))
            share += float(engine.backward(ours, shared=number == len(probes))[0])
        return share

    return backward


def _draw(
    config: Train, inputs: Inputs, interval: int, member: int
) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " n"]]:
    draws = generator(config.seed, "probe", interval, member)
    return inputs.corpus.draw(inputs.basis.matrix[member], config.mixture.basis_sequences, draws)
