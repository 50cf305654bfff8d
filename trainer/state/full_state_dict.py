"""The whole tensors of a model and its optimizer, by name, wherever their shards lie: one format for any number of processes.

Built on `torch.distributed.checkpoint.state_dict`, which knows plain, DDP and FSDP2 parameters. All processes call these together.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)

OptimizerState = dict[str, Any]

GATHERED = StateDictOptions(
    full_state_dict=True, cpu_offload=True
)  # on the leading process, one tensor at a time; empty elsewhere
WHOLE = StateDictOptions(
    full_state_dict=True
)  # every process has read all of it, and keeps its part


def shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """Of the parameters and the saved buffers by name, tied ones once; whole, also where they are sharded."""
    every_name = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    buffers = {
        name: tensor for name, tensor in model.state_dict().items() if name not in every_name
    }
    return {
        name: tuple(tensor.shape) for name, tensor in (*model.named_parameters(), *buffers.items())
    }


def model_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Copies in CPU memory of what `shapes` names; empty on all processes but the leading one."""
    found: Mapping[str, Tensor] = get_model_state_dict(model, options=GATHERED)  # type: ignore[assignment]
    return {
        name: _copied(found[name], model).contiguous() for name in shapes(model) if name in found
    }


def optimizer_state(model: nn.Module, optimizer: torch.optim.Optimizer) -> OptimizerState:
    """A copy in CPU memory of the optimizer's state, by parameter name; empty on all processes but the leading one."""
    if (
        not optimizer.state
    ):  # before the first step; torch would take one to make the tensors, and count it
        return {}
    found = get_optimizer_state_dict(model, optimizer, options=GATHERED)
    state: Mapping[str, Mapping[str, Tensor]] = found.get("state", {})  # type: ignore[assignment]
    copies = {
        name: {key: _copied(tensor, model) for key, tensor in tensors.items()}
        for name, tensors in state.items()
    }
    return {**found, "state": copies} if found else {}


def load_model(model: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Put whole tensors, all that `shapes` names, into `model`."""
    set_model_state_dict(model, dict(tensors), options=WHOLE)


def load_optimizer(
    model: nn.Module, optimizer: torch.optim.Optimizer, state: OptimizerState
) -> None:
    """Put a whole state into `optimizer`, whose settings (weight decay, betas) stay those that it was built with."""
    if not state:
        return
    settings = [
        {key: value for key, value in group.items() if key != "params"}
        for group in optimizer.param_groups
    ]
    optimizer.zero_grad()  # with gradients there, torch would not make the tensors to load into
    set_optimizer_state_dict(model, optimizer, state, options=WHOLE)
    for group, kept in zip(optimizer.param_groups, settings, strict=True):
        group.update(kept)


def _copied(tensor: Tensor, model: nn.Module) -> Tensor:
    """What came from a GPU is a copy already. What did not may be the live tensor itself: Adam's step counts never leave the CPU."""
    on_cpu = next(model.parameters()).device.type == "cpu"
    return tensor.detach().clone() if on_cpu or tensor.ndim == 0 else tensor.detach()
