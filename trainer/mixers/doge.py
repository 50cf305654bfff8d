"""DoGE: gradient alignment with a step tied to the learning rate."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from trainer.mixers import MixerState, Observation, uniform_state
from trainer.mixers.evidence import filled
from trainer.mixers.simplex import ascend, averaged

DOGE_MU = 0.05  # weight of the Bregman divergence: 0.05 is the released code's default, 0.01 its example config's
LEAST_SCORE, MOST_SCORE = (
    0.0,
    5.0,
)  # clipping of the released code: a member that opposes the direction loses no weight by itself


@dataclass(frozen=True)
class Doge:
    """`alpha <- normalise(alpha * exp(lr_t * clip(W) / mu))`, W the alignments (Fan, Pagliardini & Jaggi 2023, algorithm 1).

    W_i is measured with the sum of all members' gradients, or with the target's ("out of domain" there): whoever measures decides. The
    published rule updates at every step; an update here stands for all steps until the next and is as many times as large, so that
    `every_steps` 1 is the published one. Sequences are drawn by alpha, where the paper draws uniformly and weighs the loss: the same
    gradient on average. The mean of alpha over the updates is the result.
    """

    learning_rate: Callable[[int], float]  # of a step
    mu: float = DOGE_MU
    every_steps: int = 1  # between two updates
    needs: frozenset[str] = frozenset({"scores"})

    def start(self, basis: int) -> MixerState:
        return uniform_state(basis)

    def propose(self, state: MixerState, seen: Observation) -> MixerState:
        size = self.every_steps * self.learning_rate(seen.step) / self.mu
        log_alpha = ascend(
            state.log_alpha, size * np.clip(filled(seen.scores), LEAST_SCORE, MOST_SCORE)
        )
        alpha = np.exp(log_alpha)
        return MixerState(log_alpha, alpha, averaged(state.memory, alpha))
