"""The sequences that basis members are measured on, drawn from the training pool for each update.

They are not held-out text, because the gradient of memorised documents must shrink for weight to
move away from an over-used domain.

With `mixture.probes = "next"` a member's sequences are those of a plan that draws from the member
alone, at the run's position in the data. In a first epoch all of them are new to the model, as the
next draws are. The bounds of the run apply: what is measured is the projection of the member, and
a member whose leaves are used up is not measured.

The discount of repeated data does not apply. It says what a whole run should draw from a mixture,
and a member alone would repeat its leaves more than any mixture does. Repetition also shows in the
scores already, because the gradient of memorised text is small.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from jaxtyping import Float, Int

from trainer.config import Train
from trainer.distributed import Team, process_slice
from trainer.inputs import Inputs
from trainer.model.engine import Engine
from trainer.sampling.batches import Batch, Pool
from trainer.sampling.permutation import generator
from trainer.sampling.plan import Drawn, draw_interval, next_rows

Probe = Callable[[], Batch] | None  # reads a member's minibatch; None if its leaves are used up


@dataclass(frozen=True)
class PooledSample:
    """The sequences of all members, as one sample."""

    corpus: Pool
    matrix: Float[np.ndarray, "basis leaves"]
    """Distribution that each member's sequences are drawn from. Zero if it has none."""
    density: Float[np.ndarray, " leaves"]
    """Distribution of all sequences: the mean of the rows, weighted by their numbers of draws."""
    leaves: Int[np.ndarray, " sequences"]
    rows: Int[np.ndarray, " sequences"]

    def batches(
        self, team: Team, batch_sequences: int
    ) -> Iterator[tuple[Int[np.ndarray, " own"], Batch]]:
        """Yield the sequences in batches of the training size, with the leaf of each sequence.

        Each batch holds this process's slice. The number of batches is the same on every process.
        The loss of a batch is divided by the number of labels in that batch alone.
        """
        batches = []
        for first in range(0, len(self.leaves), batch_sequences):
            leaves = self.leaves[first : first + batch_sequences]
            rows = self.rows[first : first + batch_sequences]
            batches.append((leaves, rows, process_slice(len(leaves), team.rank, team.world)))
        _expect(self.corpus, [(leaves[own], rows[own]) for leaves, rows, own in batches])
        for leaves, rows, own in batches:
            yield leaves[own], self.corpus.read(leaves, rows, own)


def member_probes(
    config: Train, inputs: Inputs, interval: int, drawn: Drawn | None = None
) -> list[Probe]:
    """Return a function per basis member that reads its minibatch.

    Args:
        config: the config of the run.
        inputs: the open inputs.
        interval: number of the interval that is measured for.
        drawn: the position in the data. None: nothing is drawn yet, and there are no bounds.
    """
    draws = _member_draws(config, inputs, interval, drawn or _nothing(inputs))
    _expect(inputs.corpus, [(draw.leaves, draw.rows) for draw in draws])
    return [
        partial(inputs.corpus.read, draw.leaves, draw.rows) if len(draw.leaves) else None
        for draw in draws
    ]


def pooled_sample(
    config: Train, inputs: Inputs, interval: int, drawn: Drawn | None = None
) -> PooledSample:
    """Return the sequences of all members as one sample; for the arguments see `member_probes`.

    With `mixture.probes = "next"` a leaf that several members draw from gives each of them further
    sequences, so that none is measured twice. Close to the leaf's bound these can be some more than
    are left.
    """
    drawn = drawn or _nothing(inputs)
    matrix, draws = inputs.basis.matrix, _member_draws(config, inputs, interval, drawn)
    leaves, rows = (
        np.concatenate([getattr(draw, name) for draw in draws]) for name in ("leaves", "rows")
    )
    counts = None
    if config.mixture.probes == "next":
        rows, _ = next_rows(leaves, inputs.corpus.sequences, drawn.used, config.seed)
        if drawn.bounds:
            matrix = np.stack([draw.weights for draw in draws])
            counts = [len(draw.leaves) for draw in draws]
    density = inputs.fill.pooled(matrix, counts)
    return PooledSample(inputs.corpus, matrix, density, leaves, rows)


def members_probe(
    engine: Engine, config: Train, inputs: Inputs, interval: int, drawn: Drawn | None = None
) -> Callable[[], float]:
    """Return the backward pass of the sum of all members' losses.

    Its gradient is the direction of DoGE if no target is used (Fan, Pagliardini & Jaggi 2023). The
    sequences are those of `member_probes`, so that a member's own gradient can be subtracted.
    `backward` returns this process's share of the mean of the losses.
    """
    team = engine.team
    probes = [probe for probe in member_probes(config, inputs, interval, drawn) if probe]

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


@dataclass(frozen=True)
class _MemberDraws:
    weights: Float[np.ndarray, " leaves"]
    """Distribution that the sequences are drawn from, or zero."""
    leaves: Int[np.ndarray, " n"]
    rows: Int[np.ndarray, " n"]


def _expect(
    corpus: Pool, draws: Sequence[tuple[Int[np.ndarray, " _n"], Int[np.ndarray, " _n"]]]
) -> None:
    """Begin to fetch the leaves and rows of several batches, if the corpus is remote."""
    if draws:
        corpus.expect(*map(np.concatenate, zip(*draws, strict=True)))


def _nothing(inputs: Inputs) -> Drawn:
    return Drawn(np.zeros_like(inputs.corpus.sequences))


def _member_draws(config: Train, inputs: Inputs, interval: int, drawn: Drawn) -> list[_MemberDraws]:
    draw = _random if config.mixture.probes == "random" else _next
    members = range(len(inputs.basis.names))
    return [draw(config, inputs, interval, drawn, member) for member in members]


def _random(config: Train, inputs: Inputs, interval: int, _: Drawn, member: int) -> _MemberDraws:
    draws, weights = generator(config.seed, "probe", interval, member), inputs.basis.matrix[member]
    shares, count = inputs.fill.draws(weights), config.mixture.basis_sequences
    return _MemberDraws(weights, *inputs.corpus.draw(shares, count, draws))


def _next(config: Train, inputs: Inputs, interval: int, drawn: Drawn, member: int) -> _MemberDraws:
    weights, draws = inputs.basis.matrix[member], config.mixture.basis_sequences
    if drawn.bounds:
        draws = min(draws, drawn.bounds.left(drawn.used).available(weights))
    if not draws:
        none = np.zeros(0, np.int64)
        return _MemberDraws(np.zeros_like(weights), none, none)
    plan = draw_interval(
        interval,
        inputs.fill.draws(weights),
        inputs.corpus.sequences,
        drawn.used,
        draws=draws,
        seed=config.seed,
        bounds=drawn.bounds,
    )
    projected = inputs.fill.weights(plan.shares) if drawn.bounds else weights
    chosen = plan.read()
    return _MemberDraws(projected, chosen.leaves, chosen.rows)
