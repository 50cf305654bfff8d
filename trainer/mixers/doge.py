"""DoGE: gradient alignment with a step tied to the learning rate."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from trainer.mixers import MixerState, Observation, uniform_state
from trainer.mixers.evidence import filled
from trainer.mixers.simplex import ascend, averaged

# Weight of the Bregman divergence. 0.05 is the default of the released code. Its example uses 0.01.
DOGE_MU = 0.05
# Range that scores are clipped to, as in the released code. A member with a negative score loses
# weight only because others gain it.
MINIMUM_SCORE, MAXIMUM_SCORE = 0.0, 5.0


@dataclass(frozen=True)
class Doge:
    """DoGE (Fan, Pagliardini & Jaggi 2023, algorithm 1).

    Every update computes `alpha <- normalise(alpha * exp(lr_t * clip(W) / mu))`, with W_i the
    alignment of member i's gradient with the sum of all members' gradients or, in the paper's "out
    of domain" variant, with the target's. The caller's measurement decides between the two.

    The published rule updates the weights at every step. An update here is multiplied by the number
    of steps until the next one, so that it equals the published rule if `every_steps` is 1.
    Sequences are drawn with weights alpha. The paper draws uniformly and weights the loss, which
    has the same expected gradient. The result is the mean of alpha over the updates.
    """

    learning_rate: Callable[[int], float]
    """Function from a step to its learning rate."""
    mu: float = DOGE_MU
    """Weight of the Bregman divergence."""
    every_steps: int = 1
    """Number of steps between updates."""
    needs: frozenset[str] = frozenset({"scores"})

    def start(self, basis: int) -> MixerState:
        return uniform_state(basis)

    def propose(self, state: MixerState, seen: Observation) -> MixerState:
        size = self.every_steps * self.learning_rate(seen.step) / self.mu
        log_alpha = ascend(
            state.log_alpha, size * np.clip(filled(seen.scores), MINIMUM_SCORE, MAXIMUM_SCORE)
        )
        alpha = np.exp(log_alpha)
        return MixerState(log_alpha, alpha, averaged(state.memory, alpha))
