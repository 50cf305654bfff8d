"""Dynamic gradient alignment: mirror ascent on each member's alignment with the target."""

from dataclasses import dataclass

import numpy as np

from trainer.config import Scores
from trainer.mixers import MixerState, Observation, Weights, uniform_state
from trainer.mixers.evidence import filled, shrunk, standardised
from trainer.mixers.simplex import ascend

# Steps that go with each scale of scores. 1.5 is what the authors' later code takes for clipped gradients, whose products lie in [-1, 1]
# as cosines do; for raw products they recommend 0.1 to 0.5. Standardised scores differ by about 1: the middle of that range again.
DGA_ETA: dict[Scores, float] = {"raw": 0.3, "clipped": 1.5, "cosine": 1.5, "normalised": 0.3}


@dataclass(frozen=True)
class Dga:
    """`alpha <- normalise(alpha * exp(eta * a))`; `sampling <- (1 - ema) * sampling + ema * alpha` (Fan, Grangier & Ablin 2024).

    The sign is plus: a step on member i lowers the target loss by `lr * a_i`, so high alignment must gain weight. The recursion
    runs on alpha; the moving average only smooths what is sampled, without which weights jump from one member to the next.
    """

    eta: float
    ema: float  # share of the new weights; 1: no average
    scores: Scores = "clipped"  # "normalised": centred and divided by their spread here, whatever scale they came in
    most_change: float | None = None  # cap on KL(new alpha || old) of one update, nats
    floor: float = 0.0  # share that all members keep together, spread evenly
    error_aware: bool = False
    needs: frozenset[str] = frozenset({"scores"})

    def start(self, basis: int) -> MixerState:
        return uniform_state(basis)

    def propose(self, state: MixerState, seen: Observation) -> MixerState:
        log_alpha = ascend(state.log_alpha, self.eta * self.gains(seen), self.most_change)
        # The floor goes into what is averaged. Put on the average itself it would be averaged again, and pull all weights toward even ones.
        drawn = (1.0 - self.floor) * np.exp(log_alpha) + self.floor / len(log_alpha)
        return MixerState(log_alpha, (1.0 - self.ema) * state.sampling + self.ema * drawn)

    def gains(self, seen: Observation) -> Weights:
        """Return the gains before the step size; members without a score get the mean of the others."""
        trusted = filled(shrunk(seen.scores, seen.errors) if self.error_aware else seen.scores)
        if self.scores != "normalised":
            return trusted
        return standardised(
            trusted, spread_of=filled(seen.scores)
        )  # of the scores as measured: else dividing would undo the shrinking
