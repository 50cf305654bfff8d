"""The prior of `dga`: the targets' own distributions and the natural one.

It is the initial mixture, and the centre that the updates stay near.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float, Int

from trainer.mixers import Weights
from trainer.mixture_config import GENERAL

EVEN_SHARE = 0.02  # share of the other members, so that alignment can find them
REPLACED_REPEATS = 0.1  # share of repeated draws that natural data replaces
LEAST_NATURAL = 0.02  # of the prior, so that the updates have something to raise


def mean_epochs(
    row: Float[np.ndarray, " leaves"],
    drawn: Float[np.ndarray, " leaves"],
    sequences: Int[np.ndarray, " leaves"],
    draws: int,
) -> float:
    """Return the epochs of the leaves at the shares `drawn`, averaged over `row`.

    Args:
        row: the distribution that the average is weighted by.
        drawn: the shares of the run's draws.
        sequences: number of sequences per leaf.
        draws: number of sequences that the run draws.
    """
    epochs = drawn / drawn.sum() * draws / np.maximum(sequences, 1)
    return float((row * epochs).sum() / row.sum())


def automatic_share(
    drawn: Float[np.ndarray, " leaves"], sequences: Int[np.ndarray, " leaves"], draws: int
) -> float:
    """Return the share of the targets in the prior: the more they repeat, the smaller.

    Natural data replaces a tenth of the draws that would repeat a sequence in a run on the targets'
    own distributions alone, and at least 2 % of all draws. This form was chosen after the runs of
    2026-11-29, in which 1 was best without repetition and 0.9 with 16 epochs.

    Args:
        drawn: the shares of that run's draws.
        sequences: number of sequences per leaf.
        draws: number of sequences that the run draws.
    """
    repeats = np.maximum(drawn / drawn.sum() * draws - sequences, 0.0).sum() / draws
    return 1.0 - max(REPLACED_REPEATS * float(repeats), LEAST_NATURAL)


def wanted_shares(targets: Mapping[str, float], share: float) -> dict[str, float]:
    """Return the shares of stored distributions in a mixture of the targets' and `natural`.

    Args:
        targets: shares of the targets, which sum to 1. `general` counts as `natural`.
        share: their part of the mixture. `natural` has the rest.
    """
    wanted = {name: share * part for name, part in targets.items() if name != GENERAL}
    wanted["natural"] = 1.0 - sum(wanted.values())
    return wanted


def member_prior(names: Sequence[str], targets: Mapping[str, float], share: float) -> Weights:
    """Return the prior over basis distributions.

    It has the shares of `wanted_shares`, except for a small part that all members share evenly. A
    distribution that is not in the basis leaves its part to the others.
    """
    wanted = wanted_shares(targets, share)
    weights = np.array([wanted.get(name, 0.0) for name in names])
    even = np.full(len(names), 1.0 / len(names))
    if not weights.sum():
        return even
    return (1.0 - EVEN_SHARE) * weights / weights.sum() + EVEN_SHARE * even
