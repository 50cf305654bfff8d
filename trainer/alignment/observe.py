"""What is measured for a mixer, each thing only where the mixer needs it."""

from collections.abc import Set
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float

from trainer.alignment import Alignment, Direction, Members
from trainer.alignment.direction import target_direction
from trainer.alignment.measure import measure_alignment, member_losses
from trainer.alignment.probes import members_probe
from trainer.config import Train
from trainer.inputs import Inputs
from trainer.model.engine import Engine


@dataclass(frozen=True)
class MixerMeasurement:
    """Of every basis member, and of the target. What was not measured is NaN."""

    alignment: Alignment
    reference_losses: (
        Members  # of the sequences that `alignment.losses` are of, by the reference model
    )
    target_loss: float  # the target objective
    target_norm: float  # of its gradient

    def flat(self) -> Float[np.ndarray, " numbers"]:
        """As numbers that a checkpoint can keep; the breakdown by tensor is left out."""
        found = self.alignment
        return np.concatenate(
            [
                found.scores,
                found.errors,
                found.losses,
                found.effective,
                [self.target_loss, self.target_norm],
            ]
        )

    @classmethod
    def from_flat(cls, numbers: Float[np.ndarray, " numbers"]) -> "MixerMeasurement":
        members, target = numbers[:-2].reshape(4, -1), numbers[-2:].tolist()
        return cls(Alignment(*members), np.full_like(members[0], np.nan), *target)


def direction_of(
    engine: Engine, config: Train, inputs: Inputs, stage: int, optimizer: torch.optim.Optimizer
) -> Direction:
    """The gradient that the members' are compared with: of the target objective, or of all members together."""
    preconditioner = optimizer if config.mixture.preconditioned else None
    if config.mixture.mixer == "doge" and config.mixture.toward == "members":
        return target_direction(
            engine, members_probe(engine, config, inputs, stage), preconditioner
        )
    return target_direction(
        engine, lambda: inputs.objective.backward(engine, stage), preconditioner
    )


def observe(
    needs: Set[str],
    engine: Engine,
    reference: Engine | None,
    config: Train,
    inputs: Inputs,
    stage: int,
    optimizer: torch.optim.Optimizer,
) -> MixerMeasurement:
    """Measure on fresh sequences, at the parameters as they are.

    Args:
        needs: of the mixer: any of "scores", "losses", "reference_losses".
        reference: the engine of the reference model, for a mixer that needs its losses.
    """
    unknown = np.full(len(inputs.basis.names), np.nan)
    if "scores" in needs:
        direction = direction_of(engine, config, inputs, stage, optimizer)
        alignment = measure_alignment(engine, direction, config, inputs, stage)
        return MixerMeasurement(alignment, unknown, direction.loss, direction.norm)
    losses = member_losses(engine, config, inputs, stage)
    theirs = member_losses(reference, config, inputs, stage) if reference is not None else unknown
    return MixerMeasurement(Alignment(unknown, unknown, losses, unknown), theirs, np.nan, np.nan)
