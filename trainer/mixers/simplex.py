"""Steps on the simplex, in logarithms, and the mean of the weights over a run."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float

from trainer.mixers import MixerState, Weights

MixerMemory = Mapping[str, Float[np.ndarray, "..."]]


def log_normalised(logits: Weights) -> Weights:
    """Return the logarithm of softmax(logits), without overflow."""
    shifted = logits - logits.max()
    log_weights: Weights = shifted - np.log(np.exp(shifted).sum())
    return log_weights


def log_weights(weights: Weights) -> Weights:
    """Return the logarithms of weights, with a finite one for a weight of zero."""
    logarithms: Weights = np.log(np.maximum(weights, np.finfo(np.float64).tiny))
    return logarithms


def divergence(new: Weights, old: Weights) -> float:
    """Return KL(new || old) in nats, both given as logarithms."""
    return float((np.exp(new) * (new - old)).sum())


def ascend(log_alpha: Weights, gains: Weights, maximum_change: float | None = None) -> Weights:
    """Return the weights after one step of mirror ascent, as logarithms.

    The mirror map is the entropy, so that the new weights are `alpha * exp(gains)`, normalised
    (Beck & Teboulle 2003, section 5).

    Args:
        log_alpha: logarithms of the weights.
        gains: step size times gradient.
        maximum_change: maximum of KL(new || old), in nats. A longer step is shortened to
            `alpha * exp(s * gains)`, with the s in (0, 1) that reaches the maximum.
    """
    whole = log_normalised(log_alpha + gains)
    return whole if maximum_change is None else within_divergence(whole, log_alpha, maximum_change)


def within_divergence(log_alpha: Weights, origin: Weights, maximum: float) -> Weights:
    """Return the weights nearest to `log_alpha` whose divergence from `origin` is allowed.

    The nearest ones p, which minimise KL(p || alpha) where KL(p || origin) <= maximum, are the
    normalised geometric mean `origin^(1 - s) * alpha^s` with the s in (0, 1) that reaches the
    maximum (the Lagrange condition of the two divergences). It is unique, because the divergence
    increases with s: its derivative is s times the variance of `log_alpha - origin` under p.

    Args:
        log_alpha: logarithms of the weights.
        origin: logarithms of the weights in the centre of the region.
        maximum: maximum of KL(result || origin), in nats.
    """
    if divergence(log_alpha, origin) <= maximum:
        return log_alpha
    low, high = 0.0, 1.0
    while low < (middle := 0.5 * (low + high)) < high:  # until there is no float between them
        if divergence(log_normalised(origin + middle * (log_alpha - origin)), origin) <= maximum:
            low = middle
        else:
            high = middle
    return log_normalised(origin + low * (log_alpha - origin))


def averaged(memory: MixerMemory, weights: Weights) -> MixerMemory:
    """Return the memory after another update: `average` of the weights, and number of `updates`."""
    updates = memory.get("updates", np.zeros(1)) + 1.0
    before = memory.get("average", np.zeros_like(weights))
    return {"average": before + (weights - before) / updates, "updates": updates}


def final_weights(state: MixerState) -> Weights:
    """Return the mean of the weights over the run if the mixer keeps one, or the last weights."""
    average: Weights = state.memory.get("average", state.sampling)
    return average
