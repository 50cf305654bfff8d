"""Mixers: rules that turn what was measured into the weights of a basis. Pure functions of fp64 arrays; they know no model and no data."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

Weights = Float[np.ndarray, " basis"]


@dataclass(frozen=True)
class MixerState:
    """What a mixer remembers. The recursion runs on the logarithm: a weight too small for a float can still come back."""

    log_alpha: Weights
    sampling: Weights  # weights that batches are drawn with
    memory: Mapping[str, Float[np.ndarray, "..."]] = field(
        default_factory=dict
    )  # a mixer's own arrays, by name

    @property
    def alpha(self) -> Weights:
        alpha: Weights = np.exp(self.log_alpha)
        return alpha


@dataclass(frozen=True)
class Observation:
    """What was measured for an update. What a mixer does not need is NaN."""

    step: int  # optimizer steps done
    steps: int  # of the whole run
    tokens: Weights  # drawn so far with each member's weight: sum over stages of sampling_i times the stage's tokens
    scores: Weights  # alignment of each member's gradient with the target's, as `mixture.scores` scales it
    errors: Weights  # standard errors of the scores; NaN where unknown
    losses: Weights  # nats per token of each member's sequences
    reference_losses: Weights  # of the same sequences, by the reference model


@runtime_checkable
class Mixer(Protocol):
    @property
    def needs(self) -> frozenset[str]:
        """Which of "scores", "losses", "reference_losses" are measured for it; none: it is asked all the same, and sees the step."""
        ...

    def start(self, basis: int) -> MixerState:
        """The state before the first stage."""
        ...

    def propose(self, state: MixerState, seen: Observation) -> MixerState:
        """The next stage's weights from what this stage showed."""
        ...


def uniform_state(basis: int) -> MixerState:
    """Equal weights: where most mixers start."""
    return MixerState(np.full(basis, -np.log(basis)), np.full(basis, 1.0 / basis))
