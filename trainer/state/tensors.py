"""The tensors of a model and its optimizer by name, and the part of each on this process.

A tensor of a sharded model is a DTensor, of which this process holds some rows.
"""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

Named = dict[str, Tensor]


def model_tensors(model: nn.Module) -> Named:
    """Return every parameter and saved buffer by name, tied ones once, without copying."""
    every_name = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    buffers = {
        name: tensor for name, tensor in model.state_dict().items() if name not in every_name
    }
    return {name: t.detach() for name, t in (*model.named_parameters(), *buffers.items())}


def optimizer_tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Named]:
    """Return the optimizer's tensors by parameter name, without copying.

    A parameter that never had a gradient has none.
    """
    return {
        name: optimizer.state[parameter]
        for name, parameter in model.named_parameters()
        if optimizer.state.get(parameter)
    }


def make_optimizer_tensors(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    saved: Mapping[str, Mapping[str, tuple[int, ...]]],
) -> dict[str, Named]:
    """Give the optimizer tensors without content, and return them by parameter name.

    Args:
        model: the model.
        optimizer: its optimizer. What it had is dropped.
        saved: the shapes of the tensors by parameter name. A tensor is a number of steps, or has
            the shape of its parameter.
    """
    optimizer.state.clear()
    parameters = dict(model.named_parameters())
    for name, tensors in saved.items():
        parameter = parameters[name]
        optimizer.state[parameter] = {
            key: torch.empty_like(parameter, requires_grad=False)
            if shape
            else torch.zeros((), device=parameter.device)
            for key, shape in tensors.items()
        }
    return optimizer_tensors(model, optimizer)


def shapes(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """Return the whole shape of every tensor, regardless of sharding."""
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def is_sharded(model: nn.Module) -> bool:
    """Return whether this process holds a shard of the model."""
    return any(isinstance(parameter, DTensor) for parameter in model.parameters())


def own_part(tensor: Tensor) -> Tensor:
    """Return the part of a tensor on this process. Writing to it writes to the tensor."""
    return tensor.to_local().detach() if isinstance(tensor, DTensor) else tensor.detach()


def own_place(tensor: Tensor) -> tuple[slice, ...]:
    """Return the place of `own_part` in the whole tensor."""
    if not isinstance(tensor, DTensor):
        return tuple(slice(0, length) for length in tensor.shape)
    lengths, offsets = compute_local_shape_and_global_offset(
        tensor.shape, tensor.device_mesh, tensor.placements
    )
    return tuple(slice(o, o + n) for o, n in zip(offsets, lengths, strict=True))


def copied(tensor: Tensor) -> Tensor:
    """Return the part of a tensor on this process as a copy in CPU memory."""
    part = own_part(tensor)
    return part.cpu() if part.device.type != "cpu" else part.clone().contiguous()


def whole_tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield the name and the whole content of each of `model_tensors`, one at a time, on the CPU.

    All processes call this together.
    """
    for name, tensor in model_tensors(model).items():
        whole = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
        yield name, whole.cpu().contiguous()
