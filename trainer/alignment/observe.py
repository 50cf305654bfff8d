"""The measurements of a mixer. Only what the mixer needs is measured."""

import math
import time
from collections.abc import Mapping, Set
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from data_catalog.errors import UserError
from trainer.alignment import Alignment, Direction, Members
from trainer.alignment.direction import combined_direction, target_direction
from trainer.alignment.measure import (
    ScoredSequences,
    SequenceBackend,
    backward_and_score,
    batch_alignment,
    measure_alignment,
    member_excess,
    member_losses,
)
from trainer.alignment.probes import members_probe
from trainer.config import Train
from trainer.distributed import Team, process_slice
from trainer.inputs import Inputs
from trainer.mixers import Observation
from trainer.model.engine import Engine
from trainer.sampling.batches import Batch
from trainer.sampling.plan import Drawn, IntervalPlan

LOGGED_SHARES = 10  # maximum number of parameters whose share of a score is logged


@dataclass(frozen=True)
class MixerMeasurement:
    """Measurements of every basis member and of the target. Missing ones are NaN."""

    alignment: Alignment
    excess_losses: Members
    """Excess over the reference model's losses, on the sequences of `alignment.losses`."""
    target_loss: float
    """Loss of the target objective."""
    target_norm: float
    """Norm of its gradient."""

    @classmethod
    def unknown(cls, members: int) -> "MixerMeasurement":
        """Return a measurement without known values."""
        nan = np.full(members, np.nan)
        return cls(Alignment(nan, nan, nan, nan), nan, np.nan, np.nan)

    def flat(self) -> Float[np.ndarray, " numbers"]:
        """Return the measurement as an array for a checkpoint, without the shares by parameter."""
        members = self.alignment
        return np.concatenate(
            [
                members.scores,
                members.errors,
                members.losses,
                members.effective,
                [self.target_loss, self.target_norm],
            ]
        )

    @classmethod
    def from_flat(cls, numbers: Float[np.ndarray, " numbers"]) -> "MixerMeasurement":
        """Return the measurement that `flat` wrote."""
        members, target = numbers[:-2].reshape(4, -1), numbers[-2:].tolist()
        return cls(Alignment(*members), np.full_like(members[0], np.nan), *target)

    def require_finite(self, needs: Set[str], step: int) -> None:
        """Check the scores, the excess losses or the losses, whichever the mixer needs.

        Args:
            needs: measurements that the mixer needs.
            step: number of steps taken.

        Raises:
            UserError: A value is infinite, or all of them are unknown.
        """
        values = self.alignment.losses
        if "scores" in needs:
            values = self.alignment.scores
        elif "excess_losses" in needs:
            values = self.excess_losses
        if np.isinf(values).any() or np.isnan(values).all():
            raise UserError(
                f"step {step}: The measurements of the basis members are not finite. "
                "Lower optimizer.learning_rate."
            )

    def shuffled(self, draws: np.random.Generator) -> "MixerMeasurement":
        """Return the measurement with the scores, and their errors, of the members permuted."""
        members = self.alignment
        order = draws.permutation(len(members.scores))
        scores, errors = members.scores[order], members.errors[order]
        return replace(self, alignment=replace(members, scores=scores, errors=errors))

    def record(self) -> dict[str, Any]:
        """Return the measurement as values for metrics.jsonl."""
        members, excess = self.alignment, self.excess_losses
        shares = sorted(members.shares.items(), key=lambda item: -abs(item[1]))
        return {
            "scores": members.scores,
            "errors": members.errors,
            "losses": members.losses,
            "effective": members.effective,
            "target_loss": self.target_loss,
            "target_gradient_norm": self.target_norm,
            "shares": dict(shares[:LOGGED_SHARES]),
            **({"excess_losses": excess} if np.isfinite(excess).any() else {}),
        }

    def observation(
        self, step: int, steps: int, tokens: Members, prior: Members | None = None
    ) -> Observation:
        """Return the input of a mixer. `Observation` describes the arguments."""
        members = self.alignment
        return Observation(
            step,
            steps,
            tokens,
            members.scores,
            members.errors,
            members.losses,
            self.excess_losses,
            prior,
        )


def direction_of(
    engine: Engine,
    config: Train,
    inputs: Inputs,
    shares: Mapping[str, float],
    interval: int,
    optimizer: torch.optim.Optimizer | None,
    drawn: Drawn | None = None,
) -> Direction:
    """Return the gradient that the members' gradients are compared with.

    It combines the gradients of the targets' objectives, or with `mixture.toward = "members"` it is
    the sum of the members' gradients.

    Args:
        engine: the model.
        config: the config of the run.
        inputs: the open inputs.
        shares: shares of the targets, which sum to 1.
        interval: number of the interval that is measured for, or of the gradient if an interval has
            several. It selects the sequences.
        optimizer: the run's optimizer, used if `mixture.preconditioned`.
        drawn: the position in the data, used if `mixture.toward = "members"`.
    """
    preconditioner = optimizer if config.mixture.preconditioned else None
    if config.mixture.aligns_with_members:
        return target_direction(
            engine, members_probe(engine, config, inputs, interval, drawn), preconditioner
        )
    return combined_direction(
        engine,
        [
            (share, partial(inputs.aims[name].backward, engine, interval))
            for name, share in shares.items()
            if share > 0
        ],
        preconditioner,
    )


def observe(
    needs: Set[str],
    engine: Engine,
    reference: Engine | None,
    config: Train,
    inputs: Inputs,
    shares: Mapping[str, float],
    interval: int,
    optimizer: torch.optim.Optimizer | None,
    drawn: Drawn | None = None,
) -> MixerMeasurement:
    """Measure the basis members on fresh sequences, at the current parameters.

    Args:
        needs: measurements that the mixer needs: any of "scores", "losses" and "excess_losses".
        engine: the model.
        reference: the reference model, for a mixer that needs the excess over its losses.
        config: the config of the run.
        inputs: the open inputs.
        shares: shares of the targets, which sum to 1.
        interval: number of the interval that begins, which selects the sequences.
        optimizer: the run's optimizer, used if `mixture.preconditioned`.
        drawn: the position in the data; see `member_probes`.
    """
    unknown = np.full(len(inputs.basis.names), np.nan)
    if "scores" in needs:
        direction = direction_of(engine, config, inputs, shares, interval, optimizer, drawn)
        alignment = measure_alignment(engine, direction, config, inputs, interval, drawn)
        return _aligned(alignment, direction, config)
    if reference is not None:
        losses, excess = member_excess(engine, reference, config, inputs, interval, drawn)
    else:
        losses, excess = member_losses(engine, config, inputs, interval, drawn), unknown
    alignment = Alignment(unknown, unknown, losses, unknown)
    return MixerMeasurement(alignment, excess, np.nan, np.nan)


def score_batch(
    engine: Engine,
    config: Train,
    inputs: Inputs,
    shares: Mapping[str, float],
    number: int,
    batch: Batch,
    leaves: Int[np.ndarray, " sequences"],
    optimizer: torch.optim.Optimizer | None,
    *,
    trains: bool = True,
) -> tuple[Float[np.ndarray, " columns"], Float[Tensor, ""], Float[Tensor, " own"], float]:
    """Run the backward pass of a training batch and score its sequences.

    Args:
        engine: the model.
        config: the config of the run.
        inputs: the open inputs.
        shares: shares of the targets, which sum to 1.
        number: number of the target's gradient in the run, which selects its sequences.
        batch: this process's slice of the global batch.
        leaves: leaf of every sequence of the global batch.
        optimizer: the run's optimizer, used if `mixture.preconditioned`.
        trains: the gradient is that of a training step; see `backward_and_score`.

    Returns:
        The scored batch as an array for a checkpoint: loss and norm of the target's gradient, then
        leaf, number of labels, nats and score of every sequence of the global batch. Then this
        process's share of the mean loss, the sum of nats of each of its sequences, and the duration
        of the target's gradient in seconds.
    """
    begun = time.perf_counter()
    direction = direction_of(engine, config, inputs, shares, number, optimizer)
    seconds = time.perf_counter() - begun
    team = engine.team
    own = process_slice(len(leaves), team.rank, team.world)
    differences = config.mixture.backend == "finite_difference"
    backend: SequenceBackend = "finite_difference" if differences else "ghost"
    share, scored = backward_and_score(
        engine, direction, batch, leaves[own], backend, trains=trains
    )
    table = torch.zeros(3, len(leaves), dtype=torch.float64, device=team.device)
    for row, values in zip(table, (scored.tokens, scored.losses, scored.scores), strict=True):
        row[own] = values
    numbers = team.sum(table).reshape(-1).cpu().numpy()
    flat = np.concatenate([[direction.loss, direction.norm], leaves, numbers])
    return flat, share, scored.losses, seconds


def measured_on_batches(
    team: Team,
    config: Train,
    inputs: Inputs,
    plan: IntervalPlan,
    scored_batches: Float[np.ndarray, "steps columns"],
) -> MixerMeasurement:
    """Return the measurement for the next interval, from batches that `score_batch` has scored.

    The sequences of all batches are one sample. This is an approximation, because the parameters
    move between the batches. All processes call this together.

    Args:
        team: the processes of the run.
        config: the config of the run.
        inputs: the open inputs.
        plan: plan of the interval that the batches belong to.
        scored_batches: the scored batches, one per row.
    """
    losses, norms = scored_batches[:, :2].T
    table = scored_batches[:, 2:].reshape(len(scored_batches), 4, -1)
    own = process_slice(table.shape[2], team.rank, team.world)
    columns = torch.from_numpy(table[:, :, own]).movedim(1, 0).reshape(4, -1)
    scored = ScoredSequences(
        columns[0].long().numpy(), columns[1].long(), losses=columns[2], scores=columns[3]
    )
    density = inputs.fill.weights(plan.shares)
    alignment = batch_alignment(team, inputs.basis.matrix, density, [scored])
    norm = math.sqrt(np.mean(norms**2))
    return _aligned(alignment, Direction({}, float(losses.mean()), norm), config)


def _aligned(alignment: Alignment, direction: Direction, config: Train) -> MixerMeasurement:
    """Return the measurement of a mixer that needs scores, scaled as `mixture.scores` says."""
    if config.mixture.scores == "target":
        alignment = alignment.relative_to(direction)
    unknown = np.full_like(alignment.scores, np.nan)
    return MixerMeasurement(alignment, unknown, direction.loss, direction.norm)
