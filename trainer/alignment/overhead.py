"""The cost of measuring, in forward passes of one sequence.

A training step costs three: a forward pass, and a backward pass twice as expensive. Costs that do
not grow with the model are left out.
"""

import math
from typing import NamedTuple

from trainer.config import Train
from trainer.mixture_config import ALIGNING, Mixture

# Cost of one sequence in a training step, or of its gradient.
TRAINING_STEP_COST = 3.0
# Cost of scoring a fresh sequence, including its gradient.
PROBE_COST = {"exact": 3.0, "ghost": 4.0, "finite_difference": 2.0}
# Additional cost of scoring a sequence that is trained on.
BATCH_SCORING_COST = {"ghost": 1.0, "finite_difference": 2.0}
# Cost of measuring a sequence's loss, once per update, for `mixture.target_weights`.
TARGET_LOSS_COST = 1.0
# Cost of measuring a sequence's loss for a mixer. DoReMi's reference is assumed to be as large as
# the model.
LOSS_COST = {"odm": 1.0, "ado": 1.0, "doremi": 2.0}
# Maximum work of measuring, as a share of the training work, and minimum number of updates, if the
# run chooses its cadence.
AUTOMATIC_SHARE, LEAST_UPDATES = 0.02, 4
# The same maximum if batches are scored in a pass of their own.
SEPARATE_SHARE = 0.015
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
    mixture: Mixture,
    members: int,
    batch_sequences: int,
    cadence: MeasurementCadence,
    *,
    separate: bool = False,
) -> float:
    """Return the work of measuring as a share of the training work.

    Args:
        mixture: the mixture settings.
        members: number of basis members.
        batch_sequences: sequences per training step, over all processes.
        cadence: frequency and size of the measurements.
        separate: training batches are scored in a pass of their own, not in the training step.
    """
    if not mixture.learns:
        return 0.0
    every, basis, target = cadence
    aims = len(mixture.target_shares("its own target"))
    probed = members * basis
    if mixture.mixer not in ALIGNING:
        return LOSS_COST[mixture.mixer] * probed / (TRAINING_STEP_COST * batch_sequences * every)
    direction = TRAINING_STEP_COST * (aims * target if mixture.toward == "target" else probed)
    batch_cost = PROBE_COST if separate else BATCH_SCORING_COST
    scored = (
        batch_cost[mixture.backend] * batch_sequences
        if mixture.measure_on == "batch"
        else PROBE_COST[mixture.backend] * probed
    )
    work = mixture.measure_steps * (direction + scored)
    if mixture.target_weights == "improvement":
        work += TARGET_LOSS_COST * len(mixture.targets) * target
    return work / (TRAINING_STEP_COST * batch_sequences * every)


def cadence_of(config: Train, members: int, *, separate: bool = False) -> MeasurementCadence:
    """Return the cadence of a run with `members` basis members, within its overhead budget.

    If `mixture.update_every_steps` is 0, the run has `mixture.updates` updates, or fewer if they
    would take more than `AUTOMATIC_SHARE` of the training work, but at least `LEAST_UPDATES` unless
    an interval would be shorter than `mixture.measure_steps`. `separate` is as in `scoring_share`.
    """
    mixture, training = config.mixture, config.training
    batch, steps = training.batch_sequences, training.steps
    once = MeasurementCadence(1, mixture.basis_sequences, mixture.target_sequences)
    every = mixture.update_every_steps
    if not every:
        share = scoring_share(mixture, members, batch, once, separate=separate)
        affordable = math.ceil(share / (SEPARATE_SHARE if separate else AUTOMATIC_SHARE))
        every = max(round(steps / (mixture.updates + 1)), affordable, 1)
        every = max(min(every, steps // (LEAST_UPDATES + 1)), mixture.measure_steps)
    cadence = once._replace(update_every_steps=every)
    return within_budget(mixture, members, batch, cadence, separate=separate)


def updates_of(config: Train, cadence: MeasurementCadence) -> int:
    """Return the number of weight updates: between intervals, after the mixer's warmup."""
    mixture, every = config.mixture, cadence.update_every_steps
    if not mixture.learns:
        return 0
    first = max(1, math.ceil(mixture.warmup_steps / every))
    return max((config.training.steps - 1) // every - first + 1, 0)


def within_budget(
    mixture: Mixture,
    members: int,
    batch_sequences: int,
    cadence: MeasurementCadence,
    *,
    separate: bool = False,
) -> MeasurementCadence:
    """Return `cadence`, or one within `mixture.overhead_budget`.

    First, updates become rarer by at most a factor of four. Then members are measured on fewer
    fresh sequences, but at least two. Then updates become rarer without limit. The number of the
    target's sequences does not change, because they are used once for all members. The result
    depends only on the arguments, so that a resumed or replayed run has the same cadence.

    Args:
        mixture: the mixture settings.
        members: number of basis members.
        batch_sequences: sequences per training step, over all processes.
        cadence: the cadence without a budget.
        separate: that of `scoring_share`.
    """

    def share(cadence: MeasurementCadence) -> float:
        return scoring_share(mixture, members, batch_sequences, cadence, separate=separate)

    budget = mixture.overhead_budget
    if budget is None or share(cadence) <= budget:
        return cadence

    def rarer(cadence: MeasurementCadence) -> int:
        once = share(cadence._replace(update_every_steps=1))
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
        if share(cadence) <= budget:
            return cadence
    return cadence._replace(update_every_steps=rarer(cadence))
