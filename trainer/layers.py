"""The decoder layers of a model, one by one: what is compiled, recomputed in the backward pass, or sharded as a unit."""

from collections.abc import Iterable
from functools import partial

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint


def decoder_layers(model: nn.Module) -> list[nn.Module]:
    """The blocks that a transformer repeats: its largest list of modules."""
    lists: list[nn.ModuleList] = [
        module for module in model.modules() if isinstance(module, nn.ModuleList)
    ]
    return list(
        max(lists, key=lambda blocks: sum(p.numel() for p in blocks.parameters()), default=())
    )


def prepare_layers(layers: Iterable[nn.Module], *, compiled: bool, checkpointed: bool) -> None:
    """Compile each layer's forward pass, or keep nothing of it but its input; in place, so that modules and names stay what they are.

    Layer by layer: one compilation serves all of them, and gradients can travel while the backward pass goes on. transformers' own
    checkpointing needs training mode, which would turn dropout on.
    """
    for layer in layers:
        if compiled:
            layer.forward = torch.compile(layer.forward)
        if checkpointed:  # there is no randomness to repeat
            layer.forward = partial(
                checkpoint, layer.forward, use_reentrant=False, preserve_rng_state=False
            )
