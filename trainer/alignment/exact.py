"""The reference backend: one backward pass a basis member, one extra gradient of memory, one sum of N numbers over the processes."""

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from trainer.alignment import Alignment
from trainer.config import Scores
from trainer.distributed import Team

CLIP_NORM = 1.0

# Adds the gradient of a loss to `.grad` of the parameters and returns the loss.
Backward = Callable[[], Tensor | float]


def exact_scores(
    parameters: Sequence[nn.Parameter], target: Backward, members: Sequence[Backward], scores: Scores, team: Team
) -> Alignment:
    """`a_i = <g_i, v>` with v the target's gradient and g_i that of basis member i, at the current parameters.

    raw: the plain product. clipped: each gradient first scaled down to norm 1 if it is longer, so that one step size serves
    all model sizes and phases. cosine: each scaled to norm 1. Products are accumulated in fp64.

    Args:
        parameters: of the plain module; what their `.grad` holds is dropped, before and afterwards.
        target: runs this process's share of the target batch; the shares' losses and gradients add up to the batch's mean.
        members: whole minibatches of the basis members; process r runs members r, r + world, ...
    """
    _clear(parameters)  # the last optimizer step's gradient would otherwise be part of the target's
    target_loss = float(team.sum(torch.as_tensor(target(), dtype=torch.float64, device=team.device).clone()))
    team.sum_gradients(parameters)
    direction = [p.grad for p in parameters]
    target_norm = math.sqrt(_dot(direction, direction))
    products = torch.zeros(len(members), dtype=torch.float64, device=team.device)
    for i in range(team.rank, len(members), team.world):
        _clear(parameters)
        members[i]()
        gradient = [p.grad for p in parameters]
        norm = math.sqrt(_dot(gradient, gradient))
        products[i] = _dot(gradient, direction) * _scale(norm, scores) * _scale(target_norm, scores)
    _clear(parameters)
    return Alignment(team.sum(products).cpu().numpy().astype(np.float64), target_loss, target_norm)


def _scale(norm: float, scores: Scores) -> float:
    if scores == "raw" or norm == 0:
        return 1.0
    return 1.0 / norm if scores == "cosine" else min(1.0, CLIP_NORM / norm)


def _dot(left: Sequence[Tensor | None], right: Sequence[Tensor | None]) -> float:
    """One tensor at a time, so that the fp64 copies stay small; a missing gradient is zero."""
    pairs = [(a, b) for a, b in zip(left, right, strict=True) if a is not None and b is not None]
    if not pairs:
        return 0.0
    return float(torch.stack([torch.dot(a.reshape(-1).double(), b.reshape(-1).double()) for a, b in pairs]).sum())


def _clear(parameters: Sequence[nn.Parameter]) -> None:
    for parameter in parameters:
        parameter.grad = None
