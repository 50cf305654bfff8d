"""Which sequences alignment is measured on: fresh ones at each update, from the training pool and from the target's align split."""

from collections.abc import Callable
from functools import partial

from torch import Tensor

from trainer.config import Train
from trainer.data import Batch, Pool
from trainer.engine import Engine
from trainer.inputs import Inputs
from trainer.permutation import generator


def target_probe(engine: Engine, config: Train, align: Pool, stage: int) -> Callable[[], Tensor]:
    """The backward pass on the target batch; the align split is walked through, stage after stage, in a keyed order."""
    count, team = config.mixture.target_sequences, engine.team
    leaves, rows = align.in_order(config.seed, "target", stage * count, count)
    mine = slice(team.rank * count // team.world, (team.rank + 1) * count // team.world)
    batch = align.read(leaves, rows, mine)
    return lambda: engine.backward(batch)[0]


def member_probes(config: Train, inputs: Inputs, stage: int) -> list[Callable[[], Batch]]:
    """One minibatch a basis member, drawn from its distribution over the corpus; read when it is asked for.

    The training pool, not held-out text: the shrinking gradient of memorised documents is what makes weight leave an over-used domain.
    """

    def read(member: int) -> Batch:
        draws = generator(config.seed, "probe", stage, member)
        return inputs.corpus.read(*inputs.corpus.draw(inputs.basis.matrix[member], config.mixture.basis_sequences, draws))

    return [partial(read, member) for member in range(len(inputs.basis.names))]
