"""Mixers: rules that turn scores into the weights of a basis. Pure functions of fp64 arrays; they know no model and no data."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from jaxtyping import Float


@dataclass(frozen=True)
class MixerState:
    """What a mixer remembers. The recursion runs on the logarithm: a weight too small for a float can still come back."""

    log_alpha: Float[np.ndarray, " basis"]
    sampling: Float[np.ndarray, " basis"]  # weights that batches are drawn with

    @property
    def alpha(self) -> Float[np.ndarray, " basis"]:
        alpha: Float[np.ndarray, " basis"] = np.exp(self.log_alpha)
        return alpha


class Mixer(Protocol):
    @property
    def learns(self) -> bool:
        """Whether scores are measured for it at all."""
        ...

    def propose(self, state: MixerState, scores: Float[np.ndarray, " basis"]) -> MixerState:
        """The next stage's weights from this stage's scores."""
        ...


def uniform_state(basis: int) -> MixerState:
    """Equal weights: where every mixer starts."""
    return MixerState(np.full(basis, -np.log(basis)), np.full(basis, 1.0 / basis))
