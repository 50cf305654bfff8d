"""The second phase of a run: the target's align split alone, with an optimizer and a schedule of its own.

Its batches are a function of the seed and the step, as its learning rates are of the step: a resumed run needs to know no more.
"""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Int

from trainer.config import Train
from trainer.distributed import Team, process_slice
from trainer.sampling.batches import Batch, Pool


def finetune_batches(config: Train, align: Pool, first_step: int, team: Team) -> Iterator[Batch]:
    """This process's batches of the phase's steps, from `first_step` (counted from the phase's beginning) to its end."""
    for step in range(first_step, config.finetune.steps):
        yield align.read(
            *finetune_draws(config, align, step),
            process_slice(config.finetune.batch_sequences, team.rank, team.world),
        )


def finetune_draws(
    config: Train, align: Pool, step: int
) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " n"]]:
    """Leaf and row of a step's sequences: every sequence of `align` comes once an epoch, in a keyed order that is new each time."""
    count = config.finetune.batch_sequences
    return align.in_order(config.seed, "finetune", step * count, count)
