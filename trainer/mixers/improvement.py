"""Weights of several targets that move toward the targets that improve most slowly.

The idea is that of GRAPE (Fan, Glarou & Jaggi 2025): weights on the simplex are updated by
exponentiated gradient with the targets' rates of improvement, which are relative decreases of their
losses. With the weights w, the config's own weights w0, the losses L and those of the previous
measurement L', every update computes

    r_k  =  (L'_k - L_k) / L'_k
    w_k  <- w_k exp(-(S / U) r_k / mean_j |r_j|), normalised
    w    <- (1 - f) w + f w0                                    f = 1 / (U + 1)

U is the number of updates of the run, so that the whole run moves the weights equally far, however
many updates it has. Rates shrink during a run, and GRAPE does not scale them. Dividing by the mean
rate lets late updates count as much as early ones. The last line is fixed share (Herbster & Warmuth
1998). It keeps a target from vanishing, and returns the weights to the config's own if all targets
improve equally fast.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from trainer.mixers.simplex import MixerMemory, ascend, log_weights

# S. If one of two targets with equal own weights always improves twice as fast as the other, the
# slow one has 3 times the weight of the fast one at the end of the run.
IMPROVEMENT_STEP = 3.0
_WEIGHTS, _LOSSES = "target_weights", "target_losses"  # names in a mixer's memory

TargetValues = Float[np.ndarray, " targets"]


@dataclass(frozen=True)
class ImprovementWeights:
    """The rule for the weights of the targets. Its state is part of a mixer's memory."""

    own: Mapping[str, float]
    """The config's own weights of the targets, by name. They sum to 1."""
    updates: int
    """U, the number of updates of the run, at least 1."""

    def weights(self, memory: MixerMemory) -> dict[str, float]:
        """Return the present weights by name, which sum to 1."""
        return dict(zip(self.own, self._weights(memory).tolist(), strict=True))

    def updated(self, memory: MixerMemory, losses: Mapping[str, float]) -> MixerMemory:
        """Return the memory after a measurement. The first one leaves the weights unchanged.

        Args:
            memory: the mixer's memory.
            losses: loss of each target by name, in nats, on the same sequences each time.
        """
        measured = np.array([losses[name] for name in self.own])
        weights = self._weights(memory)
        if _LOSSES in memory:
            rates = rates_of_improvement(memory[_LOSSES], measured)
            scale = max(float(np.abs(rates).mean()), np.finfo(np.float64).tiny)
            gains = -IMPROVEMENT_STEP / self.updates * (rates / scale)
            share = 1.0 / (self.updates + 1)
            moved = np.exp(ascend(log_weights(weights), gains))
            weights = (1.0 - share) * moved + share * self._own()
        return {**memory, _WEIGHTS: weights, _LOSSES: measured}

    def record(self, memory: MixerMemory) -> dict[str, dict[str, float]]:
        """Return the values of an update for metrics.jsonl: weights and losses by target."""
        losses = dict(zip(self.own, memory[_LOSSES].tolist(), strict=True))
        return {"target_weights": self.weights(memory), "target_losses": losses}

    def _own(self) -> TargetValues:
        return np.array(list(self.own.values()))

    def _weights(self, memory: MixerMemory) -> TargetValues:
        weights: TargetValues = memory.get(_WEIGHTS, self._own())
        return weights


def rates_of_improvement(before: TargetValues, now: TargetValues) -> TargetValues:
    """Return the relative decrease of each loss, which is negative if the loss has grown."""
    rates: TargetValues = (before - now) / np.maximum(before, np.finfo(np.float64).tiny)
    return rates
