"""Adaptive data optimization: weights follow a scaling law that is refitted while training."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from trainer.mixers import MixerState, Observation, Weights, uniform_state
from trainer.mixers.evidence import filled
from trainer.mixers.scaling_law import fit

KEPT_CREDIT = 0.9  # gamma_1: of the moving average of what was sampled
NEW_SHARE = 0.1  # gamma_2: of the newest preference in what is sampled
CREDIT_POWER = 0.5  # s
MINIMUM_PREFERENCE = (
    1e-2  # least preference of a member; half its even share where there are more than 50
)
MINIMUM_LOSSES = 5  # losses that a law of three parameters is fitted to; before, the weights stay
MAXIMUM_LOSSES = 256  # losses kept of each member


@dataclass(frozen=True)
class Ado:
    """The published rule (Jiang, Zhou, Feng, Malladi & Kolter 2024, algorithm 1), once an update:

        h_k   <- 0.9 h_k + 0.1 pi_k
        L_k(n) = eps_k + beta_k n^-a_k                             refitted to all losses so far
        rho_k  ∝ mu_k h_k^0.5 a_k (L_k(n) - eps_k) / n             then at least 1e-2, normalised
        pi     = 0.1 rho + 0.9 mean(rho)                           the mean of all earlier ones and the prior

    n is the tokens of all members together, the released code's default. Alpha is rho, sampling is pi. A member whose law cannot be
    fitted yet is given the mean slope of the others. The losses are in the state: of more than 256 every second one is dropped, the
    newest kept.
    """

    prior: Weights | None = None  # mu: the members' own sizes, say; None: even
    needs: frozenset[str] = frozenset({"losses"})

    def start(self, basis: int) -> MixerState:
        if self.prior is None:
            return uniform_state(basis)
        return MixerState(np.log(np.maximum(self.prior, np.finfo(np.float64).tiny)), self.prior)

    def propose(self, state: MixerState, seen: Observation) -> MixerState:
        members = len(state.sampling)
        prior = np.full(members, 1.0 / members) if self.prior is None else self.prior
        memory = state.memory
        updates = memory.get("updates", np.zeros(1)) + 1.0
        tokens, losses = _thinned(
            np.append(memory.get("tokens", np.zeros(0)), seen.tokens.sum()),
            np.vstack([memory.get("losses", np.zeros((0, members))), seen.losses]),
        )
        credit = KEPT_CREDIT * memory.get("credit", prior) + (1.0 - KEPT_CREDIT) * state.sampling
        mean = memory.get("mean_preference", prior)
        kept = {
            "tokens": tokens,
            "losses": losses,
            "credit": credit,
            "updates": updates,
            "mean_preference": mean,
        }
        slopes = member_slopes(tokens, losses)
        if not np.isfinite(slopes).any():
            return MixerState(state.log_alpha, state.sampling, kept)
        preference = preferred(prior * credit**CREDIT_POWER * filled(slopes), prior)
        kept["mean_preference"] = mean + (preference - mean) / (updates + 1.0)
        return MixerState(
            np.log(preference), NEW_SHARE * preference + (1.0 - NEW_SHARE) * mean, kept
        )


def member_slopes(
    tokens: Float[np.ndarray, " points"], losses: Float[np.ndarray, "points basis"]
) -> Weights:
    """Return how fast each member's loss falls, in nats per token per token; NaN if unknown."""
    slopes = np.full(losses.shape[1], np.nan)
    for member, curve in enumerate(losses.T):
        known = np.isfinite(curve)
        if known.sum() >= MINIMUM_LOSSES:
            slopes[member] = fit(tokens[known], curve[known]).slope()
    return slopes


def preferred(wanted: Weights, prior: Weights) -> Weights:
    """Return `wanted` on the simplex with a minimum per member; the prior if all are zero."""
    share = wanted / wanted.sum() if wanted.sum() > 0 else prior
    raised = np.maximum(share, min(MINIMUM_PREFERENCE, 0.5 / len(share)))
    preference: Weights = raised / raised.sum()
    return preference


def _thinned(
    tokens: Float[np.ndarray, " points"], losses: Float[np.ndarray, "points basis"]
) -> tuple[Float[np.ndarray, " kept"], Float[np.ndarray, "kept basis"]]:
    if len(tokens) <= MAXIMUM_LOSSES:
        return tokens, losses
    return tokens[::2].copy(), losses[::2].copy()  # one more than an even number: the newest stays
