"""The mixer that a config names, and its state before the first interval."""

from collections.abc import Callable, Sequence

import numpy as np

from data_catalog.errors import UserError
from trainer.config import Train
from trainer.mixers import Mixer, MixerState, Observation, Weights
from trainer.mixers.ado import Ado
from trainer.mixers.dga import DGA_ETA, Dga
from trainer.mixers.doge import DOGE_MU, Doge
from trainer.mixers.doremi import DOREMI_ETA, DoReMi
from trainer.mixers.fixed import Static
from trainer.mixers.odm import Odm
from trainer.mixers.replay import read_replay


def make_mixer(
    config: Train,
    names: Sequence[str],
    learning_rate: Callable[[int], float],
    sizes: Weights | None = None,
    prior: Weights | None = None,
) -> Mixer:
    """Return the mixer of `config.mixture`, with its published step size unless `eta` is set.

    For "doge", `eta` is 1 / mu. "odm" and "ado" have no step size.

    Args:
        config: the config of the run.
        names: names of the basis members.
        learning_rate: function from a step to its learning rate.
        sizes: share of the tokens of each basis member, the prior of "ado". None: equal shares.
        prior: initial weights of "dga", which its updates are pulled back to. None: equal weights.

    Raises:
        UserError: The run that "replay" follows is missing or does not fit.
    """
    mixture, training = config.mixture, config.training
    every_steps = max(mixture.update_every_steps, 1)  # 0 before the cadence of a run is known
    mixer: Mixer = Static()
    if mixture.mixer == "dga":
        mixer = Dga(
            eta=mixture.eta or DGA_ETA[mixture.scores],
            ema=mixture.ema,
            scores=mixture.scores,
            maximum_change=mixture.most_change,
            floor=mixture.floor,
            prior=prior,
            pull=mixture.pull,
            maximum_tilt=mixture.maximum_tilt,
            error_aware=mixture.error_aware,
        )
    elif mixture.mixer == "doge":
        mu = 1.0 / mixture.eta if mixture.eta else DOGE_MU
        mixer = Doge(learning_rate, mu=mu, every_steps=every_steps)
    elif mixture.mixer == "doremi":
        mixer = DoReMi(eta=mixture.eta or DOREMI_ETA, every_steps=every_steps)
    elif mixture.mixer == "odm":
        mixer = Odm(mixture.odm_form, every_steps)
    elif mixture.mixer == "ado":
        mixer = Ado(sizes, config.optimizer.warmup_steps)
    elif mixture.mixer == "replay" and mixture.file is not None:  # required by the config
        step_tokens = training.batch_sequences * training.sequence_tokens
        mixer = read_replay(mixture.file, names, step_tokens, mixture.replay_order, config.seed)
    return mixer


def first_state(mixer: Mixer, names: Sequence[str], start: str | None) -> MixerState:
    """Return the state before the first interval.

    Args:
        mixer: the mixer.
        names: names of the basis members.
        start: member that gets half of the weight, while the rest is shared evenly. None: the
            mixer's own initial weights.

    Raises:
        UserError: The basis has no member `start`.
    """
    state = mixer.start(len(names))
    if start is None:
        return state
    if start not in names:
        raise UserError(
            f"mixture.start {start}: This is not a member of the basis. "
            f"Expected one of: {', '.join(names)}. Correct the name."
        )
    weights = np.full(len(names), 0.5 / len(names))
    weights[list(names).index(start)] += 0.5
    return MixerState(np.log(weights), weights, state.memory)


# Advantage of one member's score over all others that a plan is judged by. Scores of a known scale
# differ by at most about 1. Measured advantages are a few tenths.
LARGE_ADVANTAGE = 0.3
LEAST_MOVEMENT = 0.001  # half the sum of the absolute changes of the sampling weights


def require_movement(config: Train, mixer: Mixer, state: MixerState, updates: int) -> None:
    """Check that the settings of a mixer that learns can change the weights.

    The mixer is run on scores with a large advantage of the member with the second largest weight.

    Args:
        config: the config of the run.
        mixer: its mixer.
        state: the state before the first interval.
        updates: number of updates of the run.

    Raises:
        UserError: There is no update, or the weights would stay practically the same.
    """
    mixture, steps = config.mixture, config.training.steps
    if not mixture.learns or len(state.sampling) < 2:
        return
    if not updates:
        raise UserError(
            f'mixture: The weights of mixer = "{mixture.mixer}" would never change in {steps:,} '
            "steps, because no update is made. Lower mixture.update_every_steps (0 makes "
            f"mixture.updates = {mixture.updates} updates) or mixture.warmup_steps."
        )
    if mixture.mixer != "dga" or mixture.scores == "raw":  # the size of the scores is unknown
        return
    unknown = np.full(len(state.sampling), np.nan)
    scores = np.zeros(len(state.sampling))
    scores[int(np.argsort(state.sampling)[-2])] = LARGE_ADVANTAGE
    now = state
    for update in range(updates):
        seen = Observation(
            update, updates, unknown, scores, np.zeros_like(scores), unknown, unknown
        )
        now = mixer.propose(now, seen)
        moved = 0.5 * float(np.abs(now.sampling - state.sampling).sum())
        if moved >= LEAST_MOVEMENT:
            return
    raise UserError(
        f"mixture: The weights would practically stay as they are. A member whose score is "
        f"{LARGE_ADVANTAGE} higher than all others in each of the {updates:,} updates would gain "
        f"{moved:.2%} of the weight. Raise mixture.eta, mixture.ema or the number of updates, or "
        "lower mixture.pull."
    )
