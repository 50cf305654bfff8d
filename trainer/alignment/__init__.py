"""Alignment: inner products of each basis member's gradient with the target's. Backends know parameters and losses, not mixers."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float
from torch import Tensor

Members = Float[np.ndarray, " basis"]


@dataclass(frozen=True)
class Direction:
    """The target's gradient v: kept while every member is compared with it. Memory: one gradient."""

    tensors: Mapping[
        str, Tensor
    ]  # by parameter name, of the plain model; a shard of it where the parameter is one
    loss: float  # the target objective, of the batch that v was taken on
    norm: float  # of the gradient, before it was scaled or preconditioned


@dataclass(frozen=True)
class Alignment:
    scores: Members  # a_i = <g_i, v>, g_i the gradient of member i's mean loss a token
    errors: Members  # standard errors over the sequences drawn; NaN where unknown
    losses: Members  # nats per token
    effective: Members  # sequences' worth of evidence: (sum of weights)^2 / sum of squared weights
    shares: Mapping[str, float] = field(
        default_factory=dict
    )  # by parameter name: its share of the mean score; empty where unknown
