"""Online data mixing: Exp3 with the training losses as rewards."""

import math
from dataclasses import dataclass

import numpy as np

from trainer.mixers import MixerState, Observation, uniform_state
from trainer.mixers.evidence import filled
from trainer.mixers.simplex import ascend

REWARD_DECAY = 0.9  # decay of the moving average of rewards per update


@dataclass(frozen=True)
class Odm:
    """Online data mixing (Albalak, Pan, Raffel & Wang 2023, algorithm 1).

    It is Exp3 with a moving average of the rewards. Every update of k members computes

        R_i   <- 0.9 R_i + 0.1 exp(loss_i)
        eps_t  = min(1 / k, sqrt(ln k / (k t)))
        pi     = (1 - k eps_t) * softmax(eps_{t-1} R) + eps_t

    t is the number of optimizer steps. Exp3 divides a reward by the probability of observing it,
    because a step shows the loss of one domain only. Here the loss of every member is measured at
    every update, so that the probability is 1. `alpha` is the softmax, and `sampling` is pi.
    """

    needs: frozenset[str] = frozenset({"losses"})

    def start(self, basis: int) -> MixerState:
        return uniform_state(basis)

    def propose(self, state: MixerState, seen: Observation) -> MixerState:
        members = len(state.sampling)
        rewards = REWARD_DECAY * state.memory.get("rewards", np.zeros(members)) + (
            1.0 - REWARD_DECAY
        ) * np.exp(filled(seen.losses))
        log_alpha = ascend(np.zeros(members), exploration(members, seen.step - 1) * rewards)
        even = exploration(members, seen.step)
        return MixerState(
            log_alpha, (1.0 - members * even) * np.exp(log_alpha) + even, {"rewards": rewards}
        )


def exploration(members: int, step: int) -> float:
    """Return the weight that each member keeps, shrinking with the square root of the steps."""
    return (
        min(1.0 / members, math.sqrt(math.log(members) / (members * step)))
        if step > 0
        else 1.0 / members
    )
