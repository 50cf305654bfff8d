"""Weights that stay: natural, uniform and importance sampling are a basis of one row."""

import numpy as np
from jaxtyping import Float

from trainer.mixers import MixerState


class Static:
    learns = False  # its state never changes: no gradient is spent on scores

    def propose(self, state: MixerState, scores: Float[np.ndarray, " basis"]) -> MixerState:  # noqa: ARG002 - the protocol's
        return state
