"""The target's gradient, the one vector that everything is compared with."""

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from trainer.alignment import Direction
from trainer.engine import Engine


def target_direction(engine: Engine, backward: Callable[[], Tensor | float]) -> Direction:
    """Run `backward`, which adds the summed gradient of the target objective to `.grad` and returns this process's share of the loss."""
    engine.clear()  # the last optimizer step's gradient would otherwise be part of the target's
    loss = float(engine.team.sum(torch.as_tensor(backward(), dtype=torch.float64, device=engine.team.device).clone()))
    tensors = {name: p.grad for name, p in engine.parameters().items() if p.grad is not None}
    engine.clear()
    return Direction(tensors, loss, math.sqrt(sum(dots(tensors, tensors).values())))


def dots(left: Mapping[str, Tensor], right: Mapping[str, Tensor]) -> dict[str, float]:
    """Inner product of each tensor, in fp64, one at a time so that the copies stay small; a missing tensor is zero."""
    return {  # in the order of `left`: the sum of these must not depend on how a set is ordered
        name: float(torch.dot(left[name].reshape(-1).double(), right[name].reshape(-1).double())) for name in left if name in right
    }
