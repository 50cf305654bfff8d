"""DoReMi: weight moves to members whose tokens have higher losses than in a reference model."""

from dataclasses import dataclass

import numpy as np

from trainer.mixers import MixerState, Observation, uniform_state
from trainer.mixers.evidence import filled
from trainer.mixers.simplex import ascend, averaged

DOREMI_ETA = 1.0
SMOOTHING = 1e-4  # share of equal weights in each step, the default of the released code


@dataclass(frozen=True)
class DoReMi:
    """DoReMi (Xie et al. 2023, algorithm 1).

    Every optimizer step computes, for k members,

        alpha <- (1 - c) * normalise(alpha * exp(eta * excess)) + c / k

    The excess is the mean over a member's tokens of `max(loss - reference loss, 0)`: tokens are
    clipped one by one. The recursion runs on the smoothed weights. eta is 1, and c is 1e-4 as in
    the released code (github.com/sangmichaelxie/doremi, 7cde52d, `update_domain_weights`). The
    paper says 1e-3.

    The excess is measured once for the `every_steps` steps until the next update. An update repeats
    the published step as often, with the same excess, so that the weights do not depend on how
    often is measured. Sequences are drawn with weights alpha. The paper draws uniformly and weights
    the loss, which has the same expected gradient. The result is the mean of alpha over the
    updates.
    """

    eta: float = DOREMI_ETA
    """Step size."""
    smoothing: float = SMOOTHING
    """c, the share of equal weights in each step."""
    every_steps: int = 1
    """Number of steps between updates."""
    needs: frozenset[str] = frozenset({"excess_losses"})

    def start(self, basis: int) -> MixerState:
        return uniform_state(basis)

    def propose(self, state: MixerState, seen: Observation) -> MixerState:
        gains, even = self.eta * filled(seen.excess_losses), self.smoothing / len(state.sampling)
        log_alpha = state.log_alpha
        for _ in range(self.every_steps):
            alpha = (1.0 - self.smoothing) * np.exp(ascend(log_alpha, gains)) + even
            log_alpha = np.log(alpha)
        return MixerState(log_alpha, alpha, averaged(state.memory, alpha))
