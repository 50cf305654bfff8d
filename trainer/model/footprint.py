"""State, checkpoints and time of a training on several processes, by formula.

The model needs no content, so that a plan of any size takes a second. Activations are not included:
they do not depend on the number of processes (see `trainer.model.memory`).
"""

from collections.abc import Iterable

from pydantic import BaseModel, ConfigDict
from torch import Tensor
from transformers import PreTrainedModel

from trainer.config import Train
from trainer.model.flops import flops_per_token
from trainer.model.optimizer import build_optimizer, is_muon
from trainer.model.parallel import decoder_layers

STORAGE_BYTES_PER_SECOND = 1e9  # assumed speed of the storage of checkpoints
OPERATIONS_PER_SECOND = 4e14  # assumed speed of a process: 40 % of the bfloat16 peak of an H100
_STEP_BYTES = 4  # AdamW's count of steps, per tensor


class Footprint(BaseModel):
    """Requirements of a training on a number of processes."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    processes: int
    copied_bytes: int
    """Weights, gradients, optimizer states and target gradient per process with `ddp`."""
    sharded_bytes: int
    """The same with `fsdp2`: a shard of each, and the parameters that are gathered at a time."""
    checkpoint_bytes: int
    """Tensors of a checkpoint."""
    checkpoint_seconds: float
    """Time to write a checkpoint at 1 GB per second. Training continues meanwhile."""
    operations: float
    """Floating-point operations of all steps, without measurements for the mixer."""
    hours: float
    """Time of all steps if each process makes 400 TFLOP per second."""


def footprint(model: PreTrainedModel, config: Train, processes: int, *, aligns: bool) -> Footprint:
    """Return what a training needs.

    Args:
        model: the model, whose parameters need no content.
        config: the config of the run.
        processes: number of processes.
        aligns: whether a target gradient is kept.
    """
    training, size = config.training, _bytes(model.parameters())
    states = optimizer_bytes(model, config)
    whole = (3 if aligns else 2) * size + states
    operations = flops_per_token(model, training.sequence_tokens) * (
        training.draws * training.sequence_tokens
    )
    written = size + states
    return Footprint(
        processes=processes,
        copied_bytes=whole,
        sharded_bytes=-(-whole // processes) + (gathered_bytes(model) if processes > 1 else 0),
        checkpoint_bytes=written,
        checkpoint_seconds=written / STORAGE_BYTES_PER_SECOND,
        operations=operations,
        hours=operations / (OPERATIONS_PER_SECOND * processes) / 3_600,
    )


def optimizer_bytes(model: PreTrainedModel, config: Train) -> int:
    """Return the size of the optimizer's states: two of AdamW per parameter, and one of Muon."""
    total = 0
    for group in build_optimizer(model, config.optimizer).param_groups:
        size, tensors = _bytes(group["params"]), len(group["params"])
        total += size if is_muon(group) else 2 * size + _STEP_BYTES * tensors
    return total


def gathered_bytes(model: PreTrainedModel) -> int:
    """Return the size of the parameters that FSDP2 holds whole at a time, in float32.

    These are all parameters outside of the layers, and the largest layer, the next one, which is
    gathered meanwhile, and the gradient of one.
    """
    layers = [_bytes(layer.parameters()) for layer in decoder_layers(model)]
    return _bytes(model.parameters()) - sum(layers) + 3 * max(layers, default=0)


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
