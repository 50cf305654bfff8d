"""The mixer that a config names, and its state before the first interval."""

from collections.abc import Callable, Sequence

import numpy as np

from data_catalog.errors import UserError
from trainer.config import Train
from trainer.mixers import Mixer, MixerState, Weights
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
) -> Mixer:
    """Return the mixer of `config.mixture`, with its published step size unless `eta` is set.

    For "doge", `eta` is 1 / mu. "odm" and "ado" have no step size.

    Args:
        config: the config of the run.
        names: names of the basis members.
        learning_rate: function from a step to its learning rate.
        sizes: share of the tokens of each basis member, the prior of "ado". None: equal shares.

    Raises:
        UserError: The run that "replay" follows is missing or does not fit.
    """
    mixture, training = config.mixture, config.training
    mixer: Mixer = Static()
    if mixture.mixer == "dga":
        mixer = Dga(
            eta=mixture.eta or DGA_ETA[mixture.scores],
            ema=mixture.ema,
            scores=mixture.scores,
            maximum_change=mixture.most_change,
            floor=mixture.floor,
            error_aware=mixture.error_aware,
        )
    elif mixture.mixer == "doge":
        mu = 1.0 / mixture.eta if mixture.eta else DOGE_MU
        mixer = Doge(learning_rate, mu=mu, every_steps=mixture.update_every_steps)
    elif mixture.mixer == "doremi":
        mixer = DoReMi(eta=mixture.eta or DOREMI_ETA)
    elif mixture.mixer == "odm":
        mixer = Odm()
    elif mixture.mixer == "ado":
        mixer = Ado(sizes)
    elif mixture.mixer == "replay" and mixture.file is not None:  # required by the config
        step_tokens = training.batch_sequences * training.sequence_tokens
        mixer = read_replay(mixture.file, names, step_tokens)
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
