"""The mean of the weights over a run: what two-run methods hand to their second run."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float

from trainer.mixers import MixerState, Weights

Memory = Mapping[str, Float[np.ndarray, "..."]]


def averaged(memory: Memory, weights: Weights) -> Memory:
    """The memory after one more update: `average`, the mean of all updates' weights, and `updates`, how many they are."""
    updates = memory.get("updates", np.zeros(1)) + 1.0
    before = memory.get("average", np.zeros_like(weights))
    return {"average": before + (weights - before) / updates, "updates": updates}


def final_weights(state: MixerState) -> Weights:
    """The weights to train with from now on: their average over the run where the mixer keeps one, else those sampled last."""
    average: Weights = state.memory.get("average", state.sampling)
    return average
