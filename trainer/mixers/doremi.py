"""DoReMi: weight moves to members whose loss exceeds a reference model's."""

from dataclasses import dataclass

import numpy as np

from trainer.mixers import MixerState, Observation, uniform_state
from trainer.mixers.evidence import filled
from trainer.mixers.simplex import ascend, averaged

DOREMI_ETA = 1.0
SMOOTHING = 1e-3  # share of equal weights in each update


@dataclass(frozen=True)
class DoReMi:
    """DoReMi (Xie et al. 2023, algorithm 1).

    Every update of k members computes

        alpha <- (1 - c) * normalise(alpha * exp(eta * max(loss - reference, 0))) + c / k

    The recursion runs on the smoothed weights, as published. The paper clips the excess loss of
    every token. Here the mean excess per member is clipped, because only means are measured.
    Sequences are drawn with weights alpha. The paper draws uniformly and weights the loss, which
    has the same expected gradient. The result is the mean of alpha over the updates.
    """

    eta: float = DOREMI_ETA
    """Step size."""
    smoothing: float = SMOOTHING
    """c, the share of equal weights in each update."""
    needs: frozenset[str] = frozenset({"losses", "reference_losses"})

    def start(self, basis: int) -> MixerState:
        return uniform_state(basis)

    def propose(self, state: MixerState, seen: Observation) -> MixerState:
        excess = filled(np.maximum(seen.losses - seen.reference_losses, 0.0))
        stepped = np.exp(ascend(state.log_alpha, self.eta * excess))
        alpha = (1.0 - self.smoothing) * stepped + self.smoothing / len(stepped)
        return MixerState(np.log(alpha), alpha, averaged(state.memory, alpha))
