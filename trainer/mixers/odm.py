"""Online data mixing: a bandit with the training losses as rewards."""

import math
from dataclasses import dataclass

import numpy as np

from trainer.mixers import MixerState, Observation, uniform_state
from trainer.mixers.evidence import filled
from trainer.mixers.simplex import ascend
from trainer.mixture_config import OdmForm

REWARD_DECAY = 0.9  # decay of the moving average of rewards


@dataclass(frozen=True)
class Odm:
    """Online data mixing (Albalak, Pan, Raffel & Wang 2023).

    Every update of k members computes

        R_i   <- d R_i + (1 - d) exp(loss_i)
        eps_t  = min(1 / k, sqrt(ln k / (k t)))
        alpha  = R / sum(R)                 "linear"
        alpha  = softmax(eps_{t-1} R)       "exponential"
        pi     = (1 - k eps_t) * alpha + eps_t

    t is the number of optimizer steps, and `sampling` is pi.

    "linear" is the rule of the released code for batches with several domains, which is what its
    training calls (github.com/alon-albalak/online-data-mixing, edbfdad,
    `SmoothedMeanWeightUpdater.group_update`). d is 0.9 per step there. A loss is measured once for
    the `every_steps` steps since the last update, so that d is `0.9 ** every_steps`.

    "exponential" is algorithm 1 of the paper, which is Exp3. Its weights fade to equal ones,
    because eps falls while R, an average instead of a sum, does not grow. d is 0.9 per update, as
    it was when this was the only form. Exp3 divides a reward by the probability of observing it.
    Here the loss of every member is measured at every update, so that the probability is 1.
    """

    form: OdmForm = "linear"
    """Function from rewards to weights."""
    every_steps: int = 1
    """Number of steps between updates."""
    needs: frozenset[str] = frozenset({"losses"})

    def start(self, basis: int) -> MixerState:
        return uniform_state(basis)

    def propose(self, state: MixerState, seen: Observation) -> MixerState:
        members = len(state.sampling)
        linear = self.form == "linear"
        decay = REWARD_DECAY ** (self.every_steps if linear else 1)
        rewards = decay * state.memory.get("rewards", np.zeros(members)) + (1.0 - decay) * np.exp(
            filled(seen.losses)
        )
        log_alpha = (
            np.log(rewards / rewards.sum())
            if linear
            else ascend(np.zeros(members), exploration(members, seen.step - 1) * rewards)
        )
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
