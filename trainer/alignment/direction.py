"""The target's gradient, the one vector that everything is compared with."""

import math
from collections.abc import Callable, Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from trainer.alignment import Direction
from trainer.model.engine import Engine


def target_direction(
    engine: Engine,
    backward: Callable[[], Tensor | float],
    preconditioner: torch.optim.Optimizer | None = None,
) -> Direction:
    """Run `backward`, which adds the summed gradient of the target objective to `.grad` and returns this process's share of the loss.

    Args:
        preconditioner: the run's AdamW: v becomes the direction in which it would step, so that every score says by how much a step on a
            member's gradient, preconditioned, lowers the target's loss: `<v, P g> = <P v, g>`. Then v is scaled back to the
            gradient's norm, and a mixer's step size keeps its meaning.
    """
    engine.clear()  # the last optimizer step's gradient would otherwise be part of the target's
    loss = float(
        engine.team.sum(
            torch.as_tensor(backward(), dtype=torch.float64, device=engine.team.device).clone()
        )
    )
    tensors = gradients(engine)
    engine.clear()
    norm = norm_of(engine, tensors)
    if preconditioner is not None and norm > 0:
        _precondition(tensors, engine.parameters(), preconditioner)
        scale = norm / norm_of(engine, tensors)
        for tensor in tensors.values():
            tensor.mul_(scale)
    return Direction(tensors, loss, norm)


def gradients(engine: Engine) -> dict[str, Tensor]:
    """The tensors in `.grad`, not copies of them; a parameter without one is left out."""
    return {name: p.grad for name, p in engine.parameters().items() if p.grad is not None}


def dots(left: Mapping[str, Tensor], right: Mapping[str, Tensor]) -> Float[Tensor, " tensors"]:
    """Inner product with each tensor of `right`, in its order, accumulated in fp64 one tensor at a time: copies stay small.

    Of sharded tensors it is the part that this process adds to the sum over all processes. A tensor missing in `left` is zero.
    """
    products = []
    for name, tensor in right.items():
        here = local(tensor).reshape(-1).double()
        there = local(left[name]).reshape(-1).double() if name in left else torch.zeros_like(here)
        products.append(torch.dot(there, here) / _copies(tensor))
    return torch.stack(products)


def norm_of(engine: Engine, tensors: Mapping[str, Tensor]) -> float:
    """Euclidean norm of all of them, shards on other processes included."""
    squared = dots(tensors, tensors).sum()
    return math.sqrt(float(engine.team.sum(squared) if engine.sharded else squared))


def local(tensor: Tensor) -> Tensor:
    """What lies on this process: writing to it writes to `tensor`. The padding of an uneven shard is not part of it."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor.detach()


def _copies(tensor: Tensor) -> int:
    """How many processes hold the same elements of a tensor whose dot products are summed over processes."""
    if not isinstance(tensor, DTensor):
        return 1
    return math.prod(
        tensor.device_mesh.size(i)
        for i, placement in enumerate(tensor.placements)
        if placement.is_replicate()
    )


def _precondition(
    tensors: Mapping[str, Tensor],
    parameters: Mapping[str, nn.Parameter],
    optimizer: torch.optim.Optimizer,
) -> None:
    """`v / (sqrt(u) + eps)`, in place, u being AdamW's bias-corrected second moment (Kingma & Ba 2015, algorithm 1) after a step on v.

    With v itself in it, as in a real step, no element exceeds 1 / sqrt(1 - beta2). Divided by the moment as it stands, embeddings of
    words that training has not seen, whose moment is zero, would grow by 1 / eps and outweigh all else.
    """
    settings = {p: group for group in optimizer.param_groups for p in group["params"]}
    for name, tensor in tensors.items():
        parameter = parameters[name]
        group, state, gradient = (
            settings[parameter],
            optimizer.state.get(parameter, {}),
            local(tensor),
        )
        beta2, eps, steps = group["betas"][1], group["eps"], 1.0
        moment = gradient.square().mul_(1 - beta2)
        if "exp_avg_sq" in state:
            moment.add_(local(state["exp_avg_sq"]), alpha=beta2)
            steps += float(state["step"])
        gradient.div_(moment.div_(1 - beta2**steps).sqrt_().add_(eps))
