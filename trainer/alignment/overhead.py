"""What measuring costs, in forward passes of one sequence: a training step does three, one forward and a backward twice as dear.

The costs are those of the alignment backends (see `trainer.alignment`): they leave out what does not grow with the model.
"""

import math
from typing import NamedTuple

from trainer.config import ALIGNING, Mixture

TRAINING_STEP_COST = (
    3.0  # forward passes' worth of work of one sequence in a training step, or of a gradient
)
PROBE_COST = {
    "exact": 3.0,
    "ghost": 4.0,
    "finite_difference": 2.0,
}  # of scoring a fresh sequence: its gradient, and what rides on it
BATCH_SCORING_COST = {
    "ghost": 1.0,
    "finite_difference": 2.0,
}  # of scoring one that is trained on anyway
LOSS_COST = {
    "odm": 1.0,
    "ado": 1.0,
    "doremi": 2.0,
}  # of a mixer that looks at losses; DoReMi's reference counted as large as the model
MAXIMUM_STRETCH = 4  # times: how much rarer updates become before they see less
MINIMUM_MEMBER_SEQUENCES = 2  # of a member: fewer have no spread


class Cadence(NamedTuple):
    """How often is measured, and on how much."""

    update_every_steps: int
    basis_sequences: int
    target_sequences: int


def scoring_share(
    mixture: Mixture, members: int, batch_sequences: int, cadence: Cadence | None = None
) -> float:
    """What measuring adds to the work of training: 0.03 is three hundredths more.

    Args:
        members: of the basis.
        batch_sequences: of a training step, on all ranks.
        cadence: instead of the config's.
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


def configured(mixture: Mixture) -> Cadence:
    return Cadence(mixture.update_every_steps, mixture.basis_sequences, mixture.target_sequences)


def within_budget(mixture: Mixture, members: int, batch_sequences: int) -> Cadence:
    """The config's cadence, or one that keeps `scoring_share` within `mixture.overhead_budget`.

    First updates become rarer, up to four times; then members are measured on fewer fresh sequences, down to two; then updates
    become rarer without end. The target's sequences stay: they are paid once for all members. Nothing measured enters, so that a
    run that is resumed or replayed finds the same.
    """
    cadence, budget = configured(mixture), mixture.overhead_budget
    if budget is None or scoring_share(mixture, members, batch_sequences, cadence) <= budget:
        return cadence

    def rarer(cadence: Cadence) -> int:
        once = scoring_share(
            mixture, members, batch_sequences, cadence._replace(update_every_steps=1)
        )
        return max(math.ceil(once / budget), cadence.update_every_steps)

    most = MAXIMUM_STRETCH * cadence.update_every_steps
    every = rarer(cadence)
    if every <= most:
        return cadence._replace(update_every_steps=every)
    cadence = cadence._replace(update_every_steps=most)
    fresh = mixture.measure_on == "probes" or mixture.mixer not in ALIGNING
    for fewer in (
        range(cadence.basis_sequences - 1, MINIMUM_MEMBER_SEQUENCES - 1, -1) if fresh else ()
    ):
        cadence = cadence._replace(basis_sequences=fewer)
        if scoring_share(mixture, members, batch_sequences, cadence) <= budget:
            return cadence
    return cadence._replace(update_every_steps=rarer(cadence))
