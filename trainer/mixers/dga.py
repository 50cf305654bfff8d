"""Dynamic gradient alignment: mirror ascent on each member's alignment with the target."""

from dataclasses import dataclass

import numpy as np

from trainer.mixers import MixerState, Observation, Weights, uniform_state
from trainer.mixers.evidence import filled, shrunk, standardised
from trainer.mixers.simplex import ascend, log_weights, within_divergence
from trainer.mixture_config import Scores

# Step size for each scaling of scores. The authors' later code uses 1.5 for clipped gradients,
# whose products are in [-1, 1], like cosines. For raw products they recommend 0.1 to 0.5. The
# spread of standardised scores is 1, for which the middle of that range is used too.
DGA_ETA: dict[Scores, float] = {
    "raw": 0.3,
    "clipped": 1.5,
    "cosine": 1.5,
    "normalised": 0.3,
    "target": 1.5,
}


@dataclass(frozen=True)
class Dga:
    """Dynamic gradient alignment (Fan, Grangier & Ablin 2024).

    Every update computes

        alpha    <- normalise(alpha * exp(eta * a))
        alpha    <- (1 - f) alpha + f p0
        alpha    <- the nearest alpha with KL(alpha || p0) <= delta
        sampling <- (1 - ema) * sampling + ema * alpha

    The sign is positive, because a step on member i lowers the target loss by `lr * a_i`. The
    recursion runs on alpha. The moving average smooths only the sampling weights, which would
    otherwise jump from one member to another.

    The second and third line are not in the paper. With a share f of the prior p0 (fixed share,
    Herbster & Warmuth 1998), a member that has led for long can be left within some `1 / f`
    updates. Without it, leaving takes as many updates as the lead took. The bound delta makes the
    mixture a limited tilt of the prior.
    """

    eta: float
    """Step size."""
    ema: float
    """Share of the new weights in the moving average. 1 disables averaging."""
    scores: Scores = "clipped"
    """Scaling of the scores. "normalised" scores are centred and divided by their spread here."""
    maximum_change: float | None = None
    """Maximum of KL(new alpha || old alpha) per update, in nats."""
    floor: float = 0.0
    """Minimum total weight that is spread evenly over all members."""
    error_aware: bool = False
    """Shrink scores toward their mean in proportion to their standard errors."""
    prior: Weights | None = None
    """p0, which is also the initial mixture. None: equal weights."""
    pull: float = 0.0
    """f, the share of the prior in every update."""
    maximum_tilt: float | None = None
    """delta, the maximum of KL(alpha || prior), in nats."""
    needs: frozenset[str] = frozenset({"scores"})

    def start(self, basis: int) -> MixerState:
        if self.prior is None:
            return uniform_state(basis)
        return MixerState(log_weights(self.prior), self.prior)

    def propose(self, state: MixerState, seen: Observation) -> MixerState:
        log_alpha = ascend(state.log_alpha, self.eta * self.gains(seen), self.maximum_change)
        prior = (
            self.start(len(log_alpha)).log_alpha if seen.prior is None else log_weights(seen.prior)
        )
        if self.pull:
            log_alpha = np.logaddexp(np.log1p(-self.pull) + log_alpha, np.log(self.pull) + prior)
        if self.maximum_tilt is not None:
            log_alpha = within_divergence(log_alpha, prior, self.maximum_tilt)
        # The floor is applied before averaging. Applied to the average, it would accumulate and
        # pull all weights toward equal ones.
        raised = (1.0 - self.floor) * np.exp(log_alpha) + self.floor / len(log_alpha)
        sampling = (1.0 - self.ema) * state.sampling + self.ema * raised
        return MixerState(log_alpha, sampling, state.memory)

    def gains(self, seen: Observation) -> Weights:
        """Return the gains, which are not yet multiplied by the step size.

        Members without a score get the mean of the others.
        """
        trusted = filled(shrunk(seen.scores, seen.errors) if self.error_aware else seen.scores)
        if self.scores != "normalised":
            return trusted
        # The spread of the measured scores is used. That of the shrunk ones would undo the
        # shrinking.
        return standardised(trusted, spread_of=filled(seen.scores))
