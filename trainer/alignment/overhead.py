"""The cost of measuring, in forward passes of one sequence.

A training step costs three: a forward pass, and a backward pass twice as expensive. Costs that do
not grow with the model are left out.
"""

import math
from typing import NamedTuple

from trainer.config import ALIGNING, Mixture

# Cost of one sequence in a training step, or of its gradient.
TRAINING_STEP_COST = 3.0
# Cost of scoring a fresh sequence, including its gradient.
PROBE_COST = {"exact": 3.0, "ghost": 4.0, "finite_difference": 2.0}
# Additional cost of scoring a sequence that is trained on.
BATCH_SCORING_COST = {"ghost": 1.0, "finite_difference": 2.0}
# Cost of measuring a sequence's loss. DoReMi's reference is assumed to be as large as the model.
LOSS_COST = {"odm": 1.0, "ado": 1.0, "doremi": 2.0}
# Maximum factor between updates before the number of sequences is reduced.
MAXIMUM_STRETCH = 4
# Minimum number of sequences per member. A single sequence has no spread.
MINIMUM_MEMBER_SEQUENCES = 2


class MeasurementCadence(NamedTuple):
    """Frequency and size of measurements."""

    update_every_steps: int
    basis_sequences: int
    target_sequences: int


def scoring_share(
    mixture: Mixture, members: int, batch_sequences: int, cadence: MeasurementCadence | None = None
) -> float:
    """Return the work of measuring as a share of the training work.

    Args:
        mixture: the mixture settings.
        members: number of basis members.
        batch_sequences: sequences per training step, over all processes.
        cadence: replaces the cadence of the config.
    """
    if not mixture.learns:
        return 0.0
    every, basis, target = cadence or configured(mixture)
    probed = members * basis
    if mixture.mixer not in ALIGNING:
        return LOSS_COST[mixture.mixer] * probed / (TRAINING_STEP_COST * batch_sequences * every)
    direction = TRAINING_STEP_COST * (target if mixture.toward == "target" else probed)
    scored = (
        BATCH_SCORING_COST[mixture.backend] * batch_sequences
        if mixture.measure_on == "batch"
        else PROBE_COST[mixture.backend] * probed
    )
    return (direction + scored) / (TRAINING_STEP_COST * batch_sequences * every)


def configured(mixture: Mixture) -> MeasurementCadence:
    """Return the cadence of the config."""
    return MeasurementCadence(
        mixture.update_every_steps, mixture.basis_sequences, mixture.target_sequences
    )


def within_budget(mixture: Mixture, members: int, batch_sequences: int) -> MeasurementCadence:
    """Return the config's cadence, or one within `mixture.overhead_budget`.

    First, updates become rarer by at most a factor of four. Then members are measured on fewer
    fresh sequences, but at least two. Then updates become rarer without limit. The number of the
    target's sequences does not change, because they are used once for all members. The result
    depends only on the arguments, so that a resumed or replayed run has the same cadence.

    Args:
        mixture: the mixture settings.
        members: number of basis members.
        batch_sequences: sequences per training step, over all processes.
    """
    cadence, budget = configured(mixture), mixture.overhead_budget
    if budget is None or scoring_share(mixture, members, batch_sequences, cadence) <= budget:
        return cadence

    def rarer(cadence: MeasurementCadence) -> int:
        once = scoring_share(
            mixture, members, batch_sequences, cadence._replace(update_every_steps=1)
        )
        return max(math.ceil(once / budget), cadence.update_every_steps)

    maximum_steps = MAXIMUM_STRETCH * cadence.update_every_steps
    every = rarer(cadence)
    if every <= maximum_steps:
        return cadence._replace(update_every_steps=every)
    cadence = cadence._replace(update_every_steps=maximum_steps)
    fresh = mixture.measure_on == "probes" or mixture.mixer not in ALIGNING
    for fewer in (
        range(cadence.basis_sequences - 1, MINIMUM_MEMBER_SEQUENCES - 1, -1) if fresh else ()
    ):
        cadence = cadence._replace(basis_sequences=fewer)
        if scoring_share(mixture, members, batch_sequences, cadence) <= budget:
            return cadence
    return cadence._replace(update_every_steps=rarer(cadence))
