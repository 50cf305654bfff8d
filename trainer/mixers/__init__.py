"""Mixers: rules that turn measurements into the mixture weights of the next interval.

The input is an `Observation` of the basis members. The output is a `MixerState` with the weights to
sample with. Mixers are pure functions of float64 arrays, independent of the model and the data.
`choose.py` selects a mixer. `simplex.py` and `evidence.py` contain shared steps. `fixed.py` and
`replay.py` read files.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

Weights = Float[np.ndarray, " basis"]


@dataclass(frozen=True)
class MixerState:
    """Memory of a mixer.

    The weights are kept as logarithms, so that a weight too small for a float can recover.
    """

    log_alpha: Weights
    """Logarithm of the mixer's weights."""
    sampling: Weights
    """Weights that sequences are drawn with."""
    memory: Mapping[str, Float[np.ndarray, "..."]] = field(default_factory=dict)
    """The mixer's own arrays by name."""

    @property
    def alpha(self) -> Weights:
        """The mixer's weights, which sum to 1."""
        alpha: Weights = np.exp(self.log_alpha)
        return alpha


@dataclass(frozen=True)
class Observation:
    """Measurements for an update. Values that the mixer does not need are NaN."""

    step: int
    """Number of optimizer steps taken."""
    steps: int
    """Number of optimizer steps of the whole run."""
    tokens: Weights
    """Tokens drawn so far per member: the sum over intervals of sampling weight times tokens."""
    scores: Weights
    """Alignment of each member's gradient with the target's, scaled as `mixture.scores` says."""
    errors: Weights
    """Standard errors of the scores. NaN if unknown."""
    losses: Weights
    """Mean loss of each member's sequences, in nats per token."""
    excess_losses: Weights
    """Mean of `max(loss - reference model's loss, 0)` over the same tokens, in nats per token."""
    prior: Weights | None = None
    """Prior of the mixer from now on. None: that of the mixer."""


@runtime_checkable
class Mixer(Protocol):
    """A rule that adapts the mixture weights."""

    @property
    def needs(self) -> frozenset[str]:
        """Measurements this mixer needs: any of "scores", "losses" and "excess_losses".

        May be empty: `propose` is still called, with only the progress of the run set.
        """
        ...

    def start(self, basis: int) -> MixerState:
        """Return the state before the first interval, for `basis` members."""
        ...

    def propose(self, state: MixerState, seen: Observation) -> MixerState:
        """Return the state for the next interval."""
        ...


def uniform_state(basis: int) -> MixerState:
    """Return the state with equal weights, from which most mixers start."""
    return MixerState(np.full(basis, -np.log(basis)), np.full(basis, 1.0 / basis))
