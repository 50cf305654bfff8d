"""Steps on the simplex, in logarithms."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float

from trainer.mixers import MixerState, Weights

MixerMemory = Mapping[str, Float[np.ndarray, "..."]]


def log_normalised(logits: Weights) -> Weights:
    """The logarithm of softmax(logits), without overflow; the only place where weights are made to sum to 1."""
    shifted = logits - logits.max()
    log_weights: Weights = shifted - np.log(np.exp(shifted).sum())
    return log_weights


def divergence(new: Weights, old: Weights) -> float:
    """KL(new || old) in nats, both given as logarithms."""
    return float((np.exp(new) * (new - old)).sum())


def ascend(log_alpha: Weights, gains: Weights, most_change: float | None = None) -> Weights:
    """One step of mirror ascent with the entropy as its mirror map: `alpha * exp(gains)`, normalised (Beck & Teboulle 2003, section 5).

    Args:
        gains: step size times gradient.
        most_change: cap on KL(new || old), nats. A longer step is shortened to `alpha * exp(s * gains)` with the s in (0, 1) that
            reaches the cap exactly: the divergence grows with s, by s times the variance of the gains.
    """
    whole = log_normalised(log_alpha + gains)
    if most_change is None or divergence(whole, log_alpha) <= most_change:
        return whole
    low, high = 0.0, 1.0
    while low < (middle := 0.5 * (low + high)) < high:  # until no float lies between
        if divergence(log_normalised(log_alpha + middle * gains), log_alpha) <= most_change:
            low = middle
        else:
            high = middle
    return log_normalised(log_alpha + low * gains)


def averaged(memory: MixerMemory, weights: Weights) -> MixerMemory:
    """The memory after one more update: `average`, the mean of all updates' weights, and `updates`, how many they are."""
    updates = memory.get("updates", np.zeros(1)) + 1.0
    before = memory.get("average", np.zeros_like(weights))
    return {"average": before + (weights - before) / updates, "updates": updates}


def final_weights(state: MixerState) -> Weights:
    """The weights to train with from now on: their average over the run where the mixer keeps one, else those sampled last."""
    average: Weights = state.memory.get("average", state.sampling)
    return average
