"""Which mixer a config names."""

from collections.abc import Sequence
from functools import partial

import numpy as np

from data_catalog.errors import UserError
from trainer.config import Train
from trainer.mixers import Mixer, MixerState, Weights, doge, doremi
from trainer.mixers.ado import Ado
from trainer.mixers.dga import DGA_ETA, Dga
from trainer.mixers.doge import Doge
from trainer.mixers.doremi import DoReMi
from trainer.mixers.fixed import Static
from trainer.mixers.odm import Odm
from trainer.mixers.replay import read_replay
from trainer.model.optimizer import learning_rate


def make_mixer(config: Train, names: Sequence[str], natural: Weights | None = None) -> Mixer:
    """The mixer of `config.mixture`, with its published step where `eta` is None.

    `eta` is 1 / mu for "doge"; "odm" and "ado" have no step.

    Args:
        names: of the basis that it mixes.
        natural: the members' own sizes, summing to 1: the prior of "ado"; None: even.

    Raises:
        UserError: the log of "replay" does not fit.
    """
    mixture, training = config.mixture, config.training
    mixer: Mixer = Static()
    if mixture.mixer == "dga":
        mixer = Dga(
            eta=mixture.eta or DGA_ETA[mixture.scores],
            ema=mixture.ema,
            scores=mixture.scores,
            most_change=mixture.most_change,
            floor=mixture.floor,
            error_aware=mixture.error_aware,
        )
    elif mixture.mixer == "doge":
        rate = partial(learning_rate, config.optimizer, steps=training.steps)
        mixer = Doge(
            rate,
            mu=1.0 / mixture.eta if mixture.eta else doge.DOGE_MU,
            every_steps=mixture.update_every_steps,
        )
    elif mixture.mixer == "doremi":
        mixer = DoReMi(eta=mixture.eta or doremi.DOREMI_ETA)
    elif mixture.mixer == "odm":
        mixer = Odm()
    elif mixture.mixer == "ado":
        mixer = Ado(natural)
    elif mixture.mixer == "replay" and mixture.file is not None:  # the config asks for the file
        mixer = read_replay(
            mixture.file, names, training.batch_sequences * training.sequence_tokens
        )
    return mixer


def first_state(mixer: Mixer, names: Sequence[str], start: str | None) -> MixerState:
    """The state before the first stage; with `start`, half of the weight on that member and the rest shared evenly.

    Raises:
        UserError: the basis has no such member.
    """
    state = mixer.start(len(names))
    if start is None:
        return state
    if start not in names:
        raise UserError(f"mixture.start {start}: not in the basis, which has {', '.join(names)}")
    weights = np.full(len(names), 0.5 / len(names))
    weights[list(names).index(start)] += 0.5
    return MixerState(np.log(weights), weights, state.memory)
