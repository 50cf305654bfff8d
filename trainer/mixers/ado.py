"""Adaptive data optimization: weights follow a scaling law that is refitted while training."""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from trainer.mixers import MixerState, Observation, Weights, uniform_state
from trainer.mixers.evidence import filled
from trainer.mixers.scaling_law import fit
from trainer.mixers.simplex import log_weights

CREDIT_DECAY = 0.9  # gamma_1, of the moving average of the sampling weights
NEW_SHARE = 0.1  # gamma_2, share of the newest preference in the sampling weights
CREDIT_POWER = 0.5  # s
# Minimum preference per member. With more than 50 members it is half of an even share.
MINIMUM_PREFERENCE = 1e-2
# Minimum of eps, the irreducible loss in nats per token. The released code penalises a smaller one.
MINIMUM_IRREDUCIBLE = math.exp(0.5)
MINIMUM_LOSSES = 5  # minimum number of losses to fit the three parameters of a law to
MAXIMUM_LOSSES = 256  # maximum number of losses kept per member


@dataclass(frozen=True)
class Ado:
    """Adaptive data optimization (Jiang, Zhou, Feng, Malladi & Kolter 2024, algorithm 1).

    Every update computes

        h_k   <- 0.9 h_k + 0.1 pi_k
        L_k(n) = eps_k + beta_k n^-a_k
        rho_k  = mu_k h_k^0.5 a_k (L_k(n) - eps_k) / n, normalised
        pi     = 0.1 rho + 0.9 mean(rho)

    L_k is fitted again to all losses since the end of the learning rate's warm-up. eps_k is at
    least sqrt(e) = 1.65 nats. rho_k is raised to at least 1e-2 and normalised again. mean(rho) is
    over the prior and all earlier values of rho. n is the number of tokens of all members together.
    These are the defaults of the released code (github.com/yidingjiang/ado, bc3d8d0). `alpha` is
    rho, and `sampling` is pi.

    A member with too few losses for a fit gets the mean slope of the others. If no member has
    enough, the weights do not change. The losses are part of the state. If there are more than 256
    per member, every second one is dropped, and the newest is kept.
    """

    prior: Weights | None = None
    """mu, for example the members' sizes. None: equal weights."""
    first_step: int = 0
    """Number of steps before the first loss that is fitted: the learning rate's warm-up."""
    needs: frozenset[str] = frozenset({"losses"})

    def start(self, basis: int) -> MixerState:
        if self.prior is None:
            return uniform_state(basis)
        return MixerState(log_weights(self.prior), self.prior)

    def propose(self, state: MixerState, seen: Observation) -> MixerState:
        members = len(state.sampling)
        prior = np.full(members, 1.0 / members) if self.prior is None else self.prior
        memory = state.memory
        updates = memory.get("updates", np.zeros(1)) + 1.0
        tokens = memory.get("tokens", np.zeros(0))
        losses = memory.get("losses", np.zeros((0, members)))
        if seen.step >= self.first_step:
            tokens, losses = _thinned(
                np.append(tokens, seen.tokens.sum()), np.vstack([losses, seen.losses])
            )
        credit = CREDIT_DECAY * memory.get("credit", prior) + (1.0 - CREDIT_DECAY) * state.sampling
        mean = memory.get("mean_preference", prior)
        new_memory = {
            "tokens": tokens,
            "losses": losses,
            "credit": credit,
            "updates": updates,
            "mean_preference": mean,
        }
        slopes = member_slopes(tokens, losses)
        if not np.isfinite(slopes).any():
            return MixerState(state.log_alpha, state.sampling, new_memory)
        preference = preferred(prior * credit**CREDIT_POWER * filled(slopes), prior)
        new_memory["mean_preference"] = mean + (preference - mean) / (updates + 1.0)
        return MixerState(
            np.log(preference), NEW_SHARE * preference + (1.0 - NEW_SHARE) * mean, new_memory
        )


def member_slopes(
    tokens: Float[np.ndarray, " points"], losses: Float[np.ndarray, "points basis"]
) -> Weights:
    """Return the rate at which each member's loss falls, in nats per token, per token of training.

    It is NaN if unknown.
    """
    slopes = np.full(losses.shape[1], np.nan)
    for member, curve in enumerate(losses.T):
        known = np.isfinite(curve)
        if known.sum() >= MINIMUM_LOSSES:
            law = fit(tokens[known], curve[known], MINIMUM_IRREDUCIBLE)
            slopes[member] = law.slope()
    return slopes


def preferred(wanted: Weights, prior: Weights) -> Weights:
    """Return `wanted`, normalised, with a minimum per member.

    If all are zero, the prior replaces them.
    """
    share = wanted / wanted.sum() if wanted.sum() > 0 else prior
    raised = np.maximum(share, min(MINIMUM_PREFERENCE, 0.5 / len(share)))
    preference: Weights = raised / raised.sum()
    return preference


def _thinned(
    tokens: Float[np.ndarray, " points"], losses: Float[np.ndarray, "points basis"]
) -> tuple[Float[np.ndarray, " kept"], Float[np.ndarray, "kept basis"]]:
    if len(tokens) <= MAXIMUM_LOSSES:
        return tokens, losses
    return tokens[::2].copy(), losses[::2].copy()  # The number is odd, so the newest is kept.
