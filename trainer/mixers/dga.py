"""Dynamic gradient alignment: mirror ascent on the alignment of each basis member with the target."""

from dataclasses import dataclass

import numpy as np

from trainer.mixers import MixerState, Observation, uniform_state


@dataclass(frozen=True)
class Dga:
    """`alpha <- normalise(alpha * exp(eta * a))`; `sampling <- (1 - ema) * sampling + ema * alpha`.

    The sign is plus: a step on member i lowers the target loss by `lr * a_i`, so high alignment must gain weight. The recursion
    runs on alpha; the moving average only smooths what is sampled, without which weights jump from one member to the next.
    """

    eta: float
    ema: float
    needs: frozenset[str] = frozenset({"scores"})

    def start(self, basis: int) -> MixerState:
        return uniform_state(basis)

    def propose(self, state: MixerState, seen: Observation) -> MixerState:
        logits = state.log_alpha + self.eta * seen.scores
        largest = logits.max()
        log_alpha = logits - (largest + np.log(np.exp(logits - largest).sum()))
        return MixerState(log_alpha, (1.0 - self.ema) * state.sampling + self.ema * np.exp(log_alpha))
