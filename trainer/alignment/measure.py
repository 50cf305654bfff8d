"""Choice of the backend that scores sequences, and estimates for the basis members.

`measure_alignment` uses fresh sequences. `backward_and_score` replaces a step's backward pass and
scores the training batch itself; `batch_alignment` follows it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from data_catalog.format.tokens import IGNORED
from trainer.alignment import Alignment, Direction, Members
from trainer.alignment.estimate import estimate_alignment, importance_weights
from trainer.alignment.exact import exact_alignment
from trainer.alignment.finite_difference import check_differences, finite_differences
from trainer.alignment.ghost import Ghost
from trainer.alignment.probes import member_probes, pooled_sample
from trainer.config import Train
from trainer.distributed import Team
from trainer.inputs import Inputs
from trainer.model.engine import Engine
from trainer.sampling.batches import Batch
from trainer.sampling.plan import Drawn

SequenceBackend = Literal["ghost", "finite_difference"]  # backends that score each sequence


@dataclass(frozen=True)
class ScoredSequences:
    """This process's sequences of one batch.

    Losses and scores belong to a sequence's sum of nats, not to its mean.
    """

    leaves: Int[np.ndarray, " sequences"]
    """Leaf of each sequence."""
    tokens: Int[Tensor, " sequences"]
    """Number of unmasked labels."""
    losses: Float[Tensor, " sequences"]
    """Sum of the losses in nats."""
    scores: Float[Tensor, " sequences"]
    """Inner product of the gradient with v, fp64."""
    shares: Mapping[str, float] = field(default_factory=dict)
    """Sum of the scores by parameter name. Empty if unknown."""


def measure_alignment(
    engine: Engine,
    direction: Direction,
    config: Train,
    inputs: Inputs,
    interval: int,
    drawn: Drawn | None = None,
) -> Alignment:
    """Return every member's alignment with `direction`, measured on fresh sequences.

    Backends that score single sequences treat the draws of all members as one sample from the mean
    of the members' distributions. Each sequence counts for every member that could have drawn it
    (the balance heuristic, Veach & Guibas 1995). The gradients are cleared afterwards.

    Args:
        engine: the model.
        direction: the target's gradient.
        config: the config of the run.
        inputs: the data of the run.
        interval: number of the interval, which selects the sequences.
        drawn: the position in the data; see `member_probes`.
    """
    mixture = config.mixture
    if mixture.backend == "exact":
        return exact_alignment(
            engine,
            direction,
            member_probes(config, inputs, interval, drawn),
            mixture.scores,
            without_own=mixture.aligns_with_members,
        )
    scored, sample = [], pooled_sample(config, inputs, interval, drawn)
    for leaves, batch in sample.batches(engine.team, config.training.batch_sequences):
        if mixture.backend == "ghost":
            scored.append(
                backward_and_score(engine, direction, batch, leaves, "ghost", trains=False)[1]
            )
            engine.clear()  # the gradient of the backward pass, which is not used
        else:
            scored.append(_differences(engine, direction, batch, leaves))
    return batch_alignment(engine.team, sample.matrix, sample.density, scored)


def backward_and_score(
    engine: Engine,
    direction: Direction,
    batch: Batch,
    leaves: Int[np.ndarray, " sequences"],
    backend: SequenceBackend,
    *,
    trains: bool = True,
) -> tuple[Float[Tensor, ""], ScoredSequences]:
    """Run `engine.backward` and score the sequences of the batch.

    In a training step, `ghost` scores the gradient of that step, in which a sequence has its part
    of the auxiliary loss of a mixture of experts.

    Args:
        engine: the model.
        direction: the target's gradient.
        batch: this process's sequences.
        leaves: leaf of each of them.
        backend: the backend that scores them.
        trains: the gradient is that of a training step. It is summed over the processes, and
            balances experts.

    Returns:
        This process's share of the mean loss, as in `Engine.backward`, and its scored sequences.
    """
    if backend == "finite_difference":
        scored = _differences(engine, direction, batch, leaves)
        return engine.backward(batch, shared=trains, regularised=trains)[0], scored
    with Ghost(engine, direction) as ghost:
        share, losses = engine.backward(batch, shared=trains, regularised=trains)
    return share, ScoredSequences(
        leaves, _tokens(batch, losses), losses, ghost.scores[: len(leaves)], ghost.shares
    )


def batch_alignment(
    team: Team,
    matrix: Float[np.ndarray, "basis leaves"],
    density: Float[np.ndarray, " leaves"],
    scored: Sequence[ScoredSequences],
) -> Alignment:
    """Return the members' alignment, estimated from sequences that were drawn from `density`.

    A sequence from leaf c has importance weight `p_i(c) / q(c)` for member i. Inside a leaf all
    draws are uniform. p and q are both shares of tokens or both shares of draws.

    Args:
        team: the processes of the run.
        matrix: p, each member's distribution over the leaves.
        density: q, the distribution that the sequences were drawn from.
        scored: this process's sequences of one or more batches, scored with the same direction.
    """
    weights = importance_weights(matrix, np.concatenate([one.leaves for one in scored]), density)
    scores, tokens, losses = (
        torch.cat([getattr(one, name) for one in scored]) for name in ("scores", "tokens", "losses")
    )
    shares = {name: sum(one.shares[name] for one in scored) for name in scored[0].shares}
    return estimate_alignment(scores, tokens, losses, weights, team, shares)


def member_losses(
    engine: Engine, config: Train, inputs: Inputs, interval: int, drawn: Drawn | None = None
) -> Members:
    """Return every member's loss in nats per token, on the sequences of `measure_alignment`."""
    scored, sample = [], pooled_sample(config, inputs, interval, drawn)
    for leaves, batch in sample.batches(engine.team, config.training.batch_sequences):
        losses = engine.losses(batch)
        scored.append(ScoredSequences(leaves, _tokens(batch, losses), losses, losses.double()))
    return batch_alignment(engine.team, sample.matrix, sample.density, scored).losses


def member_excess(
    engine: Engine,
    reference: Engine,
    config: Train,
    inputs: Inputs,
    interval: int,
    drawn: Drawn | None = None,
) -> tuple[Members, Members]:
    """Return every member's loss and its excess over a reference model, in nats per token.

    The excess is the mean of `max(loss - reference loss, 0)` over the tokens. Both models run on
    the sequences of `member_losses`.
    """
    scored, sample = [], pooled_sample(config, inputs, interval, drawn)
    for leaves, batch in sample.batches(engine.team, config.training.batch_sequences):
        tokens = engine.token_losses(batch)
        excess = (tokens - reference.token_losses(batch)).clamp_min(0.0)
        losses, above = tokens.sum(1), excess.sum(1, dtype=torch.float64)
        scored.append(ScoredSequences(leaves, _tokens(batch, losses), losses, above))
    found = batch_alignment(engine.team, sample.matrix, sample.density, scored)
    return found.losses, found.scores


def _differences(
    engine: Engine, direction: Direction, batch: Batch, leaves: Int[np.ndarray, " sequences"]
) -> ScoredSequences:
    check_differences(engine, direction, batch)
    scores, losses = finite_differences(engine, direction, batch)
    return ScoredSequences(leaves, _tokens(batch, losses), losses, scores)


def _tokens(batch: Batch, losses: Tensor) -> Int[Tensor, " sequences"]:
    return (batch.labels != IGNORED).sum(1).to(losses.device)
