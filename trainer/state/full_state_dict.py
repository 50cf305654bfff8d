"""The full tensors of a model and its optimizer by name, regardless of sharding.

The checkpoint format is the same for any number of processes. This module uses
`torch.distributed.checkpoint.state_dict`, which supports plain, DDP and FSDP2 parameters. All
processes call these functions together.
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

# Gathers full tensors on the leader, one at a time. The other processes get none.
_GATHER_TO_LEADER = StateDictOptions(full_state_dict=True, cpu_offload=True)
# Every process has read the full tensors and keeps its own shard.
_LOAD_FROM_FULL = StateDictOptions(full_state_dict=True)


def shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """Return the full shape of every parameter and saved buffer by name, tied ones once."""
    every_name = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    buffers = {
        name: tensor for name, tensor in model.state_dict().items() if name not in every_name
    }
    return {
        name: tuple(tensor.shape) for name, tensor in (*model.named_parameters(), *buffers.items())
    }


def model_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Copy the tensors of `shapes` to CPU memory. The result is empty except on the leader."""
    gathered: Mapping[str, Tensor] = get_model_state_dict(model, options=_GATHER_TO_LEADER)  # type: ignore[assignment]
    return {
        name: _copied(gathered[name], model).contiguous()
        for name in shapes(model)
        if name in gathered
    }


def optimizer_state(model: nn.Module, optimizer: torch.optim.Optimizer) -> OptimizerState:
    """Copy the optimizer's state by parameter name. The result is empty except on the leader."""
    if not optimizer.state:
        # Before the first step, torch would take a step to create the tensors, and count it.
        return {}
    gathered = get_optimizer_state_dict(model, optimizer, options=_GATHER_TO_LEADER)
    state: Mapping[str, Mapping[str, Tensor]] = gathered.get("state", {})  # type: ignore[assignment]
    copies = {
        name: {key: _copied(tensor, model) for key, tensor in tensors.items()}
        for name, tensors in state.items()
    }
    return {**gathered, "state": copies} if gathered else {}


def load_model(model: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Load full tensors, one for every name of `shapes`, into `model`."""
    set_model_state_dict(model, dict(tensors), options=_LOAD_FROM_FULL)


def load_optimizer(
    model: nn.Module, optimizer: torch.optim.Optimizer, state: OptimizerState
) -> None:
    """Load a full state into `optimizer`, and keep its settings (weight decay, betas)."""
    if not state:
        return
    settings = [
        {key: value for key, value in group.items() if key != "params"}
        for group in optimizer.param_groups
    ]
    optimizer.zero_grad()  # torch creates the tensors to load into only if there are no gradients
    set_optimizer_state_dict(model, optimizer, state, options=_LOAD_FROM_FULL)
    for group, own_settings in zip(optimizer.param_groups, settings, strict=True):
        group.update(own_settings)


def _copied(tensor: Tensor, model: nn.Module) -> Tensor:
    """Return a gathered tensor as a copy that later steps do not change.

    Tensors from a GPU are copies already. Others may be the live tensor itself, such as AdamW's
    step counts, which always are on the CPU.
    """
    on_cpu = next(model.parameters()).device.type == "cpu"
    return tensor.detach().clone() if on_cpu or tensor.ndim == 0 else tensor.detach()
