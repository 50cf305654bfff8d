"""Alignment: inner products of each basis member's gradient with the target's. Backends know parameters and losses, not mixers."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float


@dataclass(frozen=True)
class Alignment:
    scores: Float[np.ndarray, " basis"]
    target_loss: float  # nats per token, of the batch that the target gradient was taken on
    target_norm: float  # of its gradient, before any clipping
