"""The reference backend: one backward pass a basis member, one extra gradient of memory, one sum of N numbers over the processes."""

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch

from trainer.alignment import Alignment, Direction
from trainer.alignment.direction import dots
from trainer.config import Scores
from trainer.data import Batch
from trainer.engine import Engine

CLIP_NORM = 1.0


def exact_alignment(engine: Engine, direction: Direction, members: Sequence[Callable[[], Batch]], scores: Scores) -> Alignment:
    """`a_i = <g_i, v>` with v the target's gradient and g_i that of basis member i, at the current parameters.

    raw, normalised: the plain product. clipped: each gradient first scaled down to norm 1 if it is longer, so that one step size serves
    all model sizes and phases. cosine: each scaled to norm 1. Products are accumulated in fp64.

    Args:
        members: read each member's whole minibatch; process r runs members r, r + world, ...
    """
    team = engine.team
    found = torch.zeros(2, len(members), dtype=torch.float64, device=team.device)
    for i in range(team.rank, len(members), team.world):
        engine.clear()
        share, _ = engine.backward(members[i](), shared=False)
        gradient = {name: p.grad for name, p in engine.parameters().items() if p.grad is not None}
        norm = math.sqrt(sum(dots(gradient, gradient).values()))
        product = sum(dots(gradient, direction.tensors).values())
        found[0, i] = product * _scale(norm, scores) * _scale(direction.norm, scores)
        found[1, i] = share
    engine.clear()
    products, losses = team.sum(found).cpu().numpy().astype(np.float64)
    unknown = np.full(len(members), np.nan)
    return Alignment(products, unknown, losses, unknown)


def _scale(norm: float, scores: Scores) -> float:
    if scores in ("raw", "normalised") or norm == 0:
        return 1.0
    return 1.0 / norm if scores == "cosine" else min(1.0, CLIP_NORM / norm)
