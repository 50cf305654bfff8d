"""Which sequences alignment is measured on: fresh ones at each update, from the training pool and from the target's align split."""

from collections.abc import Callable
from functools import partial

from torch import Tensor, nn

from trainer.config import Train
from trainer.data import Batch, Pool
from trainer.distributed import Team
from trainer.inputs import Inputs
from trainer.model import backward
from trainer.permutation import generator


def target_probe(model: nn.Module, config: Train, align: Pool, stage: int, team: Team) -> Callable[[], Tensor]:
    """This process's share of the target batch; the align split is walked through, stage after stage, in a keyed order."""
    count = config.mixture.target_sequences
    leaves, rows = align.in_order(config.seed, "target", stage * count, count)
    mine = slice(team.rank * count // team.world, (team.rank + 1) * count // team.world)
    return partial(_run, model, config, align.read(leaves, rows, mine).to(team.device))


def member_probes(model: nn.Module, config: Train, inputs: Inputs, stage: int, team: Team) -> list[Callable[[], Tensor]]:
    """One minibatch a basis member, drawn from its distribution over the corpus; read when it is run.

    The training pool, not held-out text: the shrinking gradient of memorised documents is what makes weight leave an over-used domain.
    """

    def run(member: int) -> Tensor:
        draws = generator(config.seed, "probe", stage, member)
        leaves, rows = inputs.corpus.draw(inputs.basis.matrix[member], config.mixture.basis_sequences, draws)
        return _run(model, config, inputs.corpus.read(leaves, rows).to(team.device))

    return [partial(run, member) for member in range(len(inputs.basis.names))]


def _run(model: nn.Module, config: Train, batch: Batch) -> Tensor:
    return backward(model, batch, config.training)
