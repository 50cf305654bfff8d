"""The target's gradient, the vector that all other gradients are compared with."""

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from trainer.alignment import Direction
from trainer.model.engine import Engine
from trainer.model.optimizer import is_muon, muon_step


def target_direction(
    engine: Engine,
    backward: Callable[[], Tensor | float],
    preconditioner: torch.optim.Optimizer | None = None,
) -> Direction:
    """Return the gradient of the target objective.

    Args:
        engine: the model.
        backward: adds the summed gradient of the objective to `.grad` and returns this process's
            share of the loss.
        preconditioner: the run's optimizer. If given, v becomes the direction in which it would
            step, so that a score is the decrease of the target's loss by a preconditioned step on a
            member's gradient: `<v, P g> = <P v, g>`. v is then scaled back to the norm of the
            gradient, so that a mixer's step size needs no change.
    """
    engine.clear()  # Otherwise the gradient of the last optimizer step would be added.
    loss = float(
        engine.team.sum(
            torch.as_tensor(backward(), dtype=torch.float64, device=engine.team.device).clone()
        )
    )
    tensors = gradients(engine)
    engine.clear()
    return _as_direction(engine, tensors, loss, preconditioner)


def _as_direction(
    engine: Engine,
    tensors: dict[str, Tensor],
    loss: float,
    preconditioner: torch.optim.Optimizer | None,
) -> Direction:
    """Return the direction of a gradient, which is preconditioned in place."""
    norm = norm_of(engine, tensors)
    if preconditioner is not None and norm > 0:
        _precondition(tensors, engine.parameters(), preconditioner)
        scale = norm / norm_of(engine, tensors)
        for tensor in tensors.values():
            tensor.mul_(scale)
    return Direction(tensors, loss, norm)


def combined_direction(
    engine: Engine,
    objectives: Sequence[tuple[float, Callable[[], Tensor | float]]],
    preconditioner: torch.optim.Optimizer | None = None,
) -> Direction:
    """Return the weighted sum of the gradients of several objectives.

    The gradients are scaled to one norm first, so that an objective's share in the sum does not
    depend on the size of its gradient:

        v = mean norm * sum_k w_k v_k / |v_k|

    The mean is weighted by w too, and v keeps the unit of a gradient. The loss is the weighted mean
    of the losses. It takes twice the memory of one gradient, and one backward pass per objective.

    Args:
        engine: the model.
        objectives: share w_k and backward pass of each, as in `target_direction`.
        preconditioner: the run's optimizer, as in `target_direction`.
    """
    if len(objectives) == 1:
        return target_direction(engine, objectives[0][1], preconditioner)
    total: dict[str, Tensor] = {}
    loss = mean_norm = 0.0
    for weight, backward in objectives:
        one = target_direction(engine, backward)
        loss += weight * one.loss
        mean_norm += weight * one.norm
        scale = weight / one.norm if one.norm > 0 else 0.0
        for name, tensor in one.tensors.items():
            if name in total:
                total[name].add_(tensor, alpha=scale)
            else:
                total[name] = tensor.mul_(scale)
    for tensor in total.values():
        tensor.mul_(mean_norm)
    return _as_direction(engine, total, loss, preconditioner)


def gradients(engine: Engine) -> dict[str, Tensor]:
    """Return the tensors in `.grad` by parameter name, without copying.

    Parameters without a gradient are not included.
    """
    return {name: p.grad for name, p in engine.parameters().items() if p.grad is not None}


def dots(left: Mapping[str, Tensor], right: Mapping[str, Tensor]) -> Float[Tensor, " tensors"]:
    """Return the inner product with each tensor of `right`, in its order, accumulated in fp64.

    Tensors are processed one at a time, so that copies stay small. For sharded tensors the result
    is this process's term of the sum over all processes. A tensor missing in `left` counts as zero.
    """
    products = []
    for name, tensor in right.items():
        factor = local(tensor).reshape(-1).double()
        other = local(left[name]).reshape(-1).double() if name in left else torch.zeros_like(factor)
        products.append(torch.dot(other, factor) / _copies(tensor))
    return torch.stack(products)


def norm_of(engine: Engine, tensors: Mapping[str, Tensor]) -> float:
    """Return the Euclidean norm of all tensors, including shards on other processes."""
    squared = dots(tensors, tensors).sum()
    return math.sqrt(float(engine.team.sum(squared) if engine.sharded else squared))


def local(tensor: Tensor) -> Tensor:
    """Return the part of a tensor on this process, without the padding of an uneven shard.

    Writing to it writes to `tensor`.
    """
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor.detach()


def _copies(tensor: Tensor) -> int:
    """Return the number of processes that hold the same elements of a summed tensor."""
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
    """Replace v by the step that the optimizer would take on it, in place.

    With AdamW that is `v / (sqrt(u) + eps)`, where u is its bias-corrected second moment after a
    step on v (Kingma & Ba 2015, algorithm 1). With v itself in it, as in a real step, no element
    exceeds 1 / sqrt(1 - beta2). With the current moment instead, embeddings of words that training
    has not seen, whose moment is zero, would grow by 1 / eps and outweigh everything else. Muon
    makes a matrix orthogonal.
    """
    settings = {p: group for group in optimizer.param_groups for p in group["params"]}
    for name, tensor in tensors.items():
        parameter = parameters[name]
        group, state, gradient = (
            settings[parameter],
            optimizer.state.get(parameter, {}),
            local(tensor),
        )
        if is_muon(group):
            tensor.copy_(muon_step(tensor))
            continue
        beta2, eps, steps = group["betas"][1], group["eps"], 1.0
        moment = gradient.square().mul_(1 - beta2)
        if "exp_avg_sq" in state:
            moment.add_(local(state["exp_avg_sq"]), alpha=beta2)
            steps += float(state["step"])
        gradient.div_(moment.div_(1 - beta2**steps).sqrt_().add_(eps))
