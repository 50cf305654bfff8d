"""Batches of the second phase of a run, which trains on the target's align split alone.

They are a function of the seed and the step, so that a resumed run needs no stored state.
"""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Int

from trainer.config import Train
from trainer.distributed import Team, process_slice
from trainer.sampling.batches import Batch, Pool


def finetune_batches(config: Train, align: Pool, first_step: int, team: Team) -> Iterator[Batch]:
    """Yield this process's batches from step `first_step` of the phase to its end."""
    own = process_slice(config.finetune.batch_sequences, team.rank, team.world)
    for step in range(first_step, config.finetune.steps):
        yield align.read(*finetune_draws(config, align, step), own)


def finetune_draws(
    config: Train, align: Pool, step: int
) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " n"]]:
    """Return leaf and row of each sequence of a step's global batch.

    Every sequence of `align` comes once per epoch, in a new keyed order each time.
    """
    count = config.finetune.batch_sequences
    return align.in_order(config.seed, "finetune", step * count, count)
