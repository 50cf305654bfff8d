"""Alignment: inner products of each basis member's gradient with the target's.

Inputs are the model, the target's gradient (`Direction`) and sequences of the members. The output
is an `Alignment`. The backends (`exact.py`, `ghost.py`, `finite_difference.py`) do not depend on
mixers. `measure.py` selects a backend, and `observe.py` makes the measurements that a mixer needs.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from jaxtyping import Float
from torch import Tensor

Members = Float[np.ndarray, " basis"]


@dataclass(frozen=True)
class Direction:
    """The target's gradient v, kept while every member is compared with it.

    It takes as much memory as one gradient.
    """

    tensors: Mapping[str, Tensor]
    """Gradient by parameter name of the plain model. Sharded parameters have sharded gradients."""
    loss: float
    """Loss of the target objective on the batch of the gradient."""
    norm: float
    """Norm of the gradient before scaling and preconditioning."""


@dataclass(frozen=True)
class Alignment:
    """Alignment of every basis member with the target."""

    scores: Members
    """`a_i = <g_i, v>`, with g_i the gradient of member i's mean loss per token."""
    errors: Members
    """Standard errors over the drawn sequences. NaN if unknown."""
    losses: Members
    """Mean losses in nats per token."""
    effective: Members
    """Effective number of sequences: (sum of weights)^2 / sum of squared weights."""
    shares: Mapping[str, float] = field(default_factory=dict)
    """Share of the mean score by parameter name. Empty if unknown."""

    def relative_to(self, direction: Direction) -> "Alignment":
        """Return the scores, their errors and shares divided by the square of the target's norm.

        A score is then the share of the decrease of the target's loss that a step along the
        target's own gradient gives. The scale is common to all members, so that the small gradient
        of memorised text stays small, and it needs no member's norm.
        """
        scale = 1.0 / direction.norm**2 if direction.norm > 0 else 1.0
        shares = {name: scale * share for name, share in self.shares.items()}
        return replace(self, scores=scale * self.scores, errors=scale * self.errors, shares=shares)
