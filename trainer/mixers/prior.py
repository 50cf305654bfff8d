"""The prior of `dga`: the target's own distribution and the natural one.

It is the initial mixture, and the centre that the updates stay near.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from trainer.mixers import Weights

EVEN_SHARE = 0.02  # share of the other members, so that alignment can find them


def mean_epochs(
    row: Float[np.ndarray, " leaves"],
    drawn: Float[np.ndarray, " leaves"],
    sequences: Int[np.ndarray, " leaves"],
    draws: int,
) -> float:
    """Return the epochs of the leaves at the shares `drawn`, averaged over the draws of `row`.

    Args:
        row: the distribution that the average is weighted by.
        drawn: the distribution that the run draws from.
        sequences: number of sequences per leaf.
        draws: number of sequences that the run draws.
    """
    epochs = drawn / drawn.sum() * draws / np.maximum(sequences, 1)
    return float((row * epochs).sum() / row.sum())


def member_prior(names: Sequence[str], target: str, share: float) -> Weights:
    """Return the prior over basis distributions.

    The target's own distribution has the weight `share`, and `natural` has the rest, except for a
    small part that all members share evenly. A distribution that is not in the basis leaves its
    part to the others.
    """
    wanted = {target: share, "natural": 1.0 - share}
    weights = np.array([wanted.get(name, 0.0) for name in names])
    even = np.full(len(names), 1.0 / len(names))
    if not weights.sum():
        return even
    return (1.0 - EVEN_SHARE) * weights / weights.sum() + EVEN_SHARE * even
