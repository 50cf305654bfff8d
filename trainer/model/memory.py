"""Model size and memory use of training, computed from the config alone."""

from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict, computed_field
from transformers import AutoConfig, AutoModelForCausalLM

from data_catalog.errors import UserError
from trainer.config import Model, Training
from trainer.model.head import LOGITS_PER_PIECE
from trainer.model.model import preset_sizes

FLOAT32_BYTES, BFLOAT16_BYTES = 4, 2


@dataclass(frozen=True)
class Shape:
    """Sizes of a model."""

    parameters: int
    """Number of parameters, tied ones once."""
    layers: int
    hidden: int
    intermediate: int
    """Width inside the feed-forward blocks."""
    vocabulary: int


class MemoryBytes(BaseModel):
    """Memory in bytes of one process that holds the whole model."""

    model_config = ConfigDict(frozen=True)

    weights: int
    gradients: int
    optimizer: int
    """AdamW's two moments."""
    alignment: int
    """The target's gradient."""
    activations: int
    """Activations of one micro-batch, estimated."""

    @computed_field  # type: ignore[prop-decorator]
    @property
    def total(self) -> int:
        """Sum of all parts."""
        return self.weights + self.gradients + self.optimizer + self.alignment + self.activations


def model_shape(config: Model, vocabulary: int) -> Shape | None:
    """Return the sizes of the model of `config`; None for a hub name, which is not looked up.

    Raises:
        UserError: A local path has no config of a causal language model, or the sizes of a preset
            do not fit each other.
    """
    if config.path is None:
        layers, hidden, _ = preset_sizes(config)
        intermediate = -(-hidden * 8 // 3 // 64) * 64
        # Parameters of attention, of the gated feed-forward layers and of two norms.
        block = 4 * hidden * hidden + 3 * hidden * intermediate + 2 * hidden
        return Shape(
            vocabulary * hidden + layers * block + hidden, layers, hidden, intermediate, vocabulary
        )
    if not Path(config.path).exists():
        return None
    try:
        loaded = AutoConfig.from_pretrained(
            config.path, local_files_only=True, trust_remote_code=False
        )
        with torch.device("meta"):  # shapes without storage
            model = AutoModelForCausalLM.from_config(loaded)  # type: ignore[no-untyped-call]
    except (OSError, ValueError) as error:
        raise UserError(
            f"model.path {config.path}: There is no causal language model ({error}). "
            "Correct the path."
        ) from error
    hidden = int(loaded.hidden_size)
    # Configs without this size, such as GPT-2's, use four times the hidden size.
    intermediate = getattr(loaded, "intermediate_size", None) or 4 * hidden
    return Shape(
        model.num_parameters(),
        int(loaded.num_hidden_layers),
        hidden,
        int(intermediate),
        int(loaded.vocab_size),
    )


def memory_need(shape: Shape, training: Training, *, aligns: bool, device: str) -> MemoryBytes:
    """Return the peak memory of one process, without the overhead of libraries and allocators.

    Args:
        shape: sizes of the model.
        training: the training settings.
        aligns: whether a target gradient is kept.
        device: "cpu" or "cuda", which determines how many logits exist at a time.
    """
    state = FLOAT32_BYTES * shape.parameters
    return MemoryBytes(
        weights=state,
        gradients=state,
        optimizer=2 * state,
        alignment=state if aligns else 0,
        activations=activation_bytes(shape, training, device),
    )


def activation_bytes(shape: Shape, training: Training, device: str) -> int:
    """Estimate the bytes of the tensors kept for the backward pass of one micro-batch.

    The estimate is for Llama-like blocks with fused attention, and includes the head's logits. Each
    block keeps the inputs and outputs of two norms in fp32. It also keeps the inputs of the matrix
    products, the four tensors of attention and four tensors of the feed-forward block in the dtype
    of the matrix products.
    """
    positions = training.micro_batch_sequences * training.sequence_tokens
    narrow = training.precision == "bfloat16"
    inside = (9 * shape.hidden + 4 * shape.intermediate) * BFLOAT16_BYTES
    if not narrow:  # The inputs of the products are the outputs of the norms.
        inside = (6 * shape.hidden + 4 * shape.intermediate) * FLOAT32_BYTES
    block = positions * (4 * shape.hidden * FLOAT32_BYTES + inside)
    boundary = positions * shape.hidden * FLOAT32_BYTES
    blocks = (
        shape.layers * boundary + block if training.checkpoint_activations else shape.layers * block
    )
    copies = BFLOAT16_BYTES * shape.parameters if narrow else 0  # weights cached by autocast
    logits = min(positions * shape.vocabulary, LOGITS_PER_PIECE[device])
    head = (shape.vocabulary * shape.hidden + 2 * logits) * FLOAT32_BYTES
    return blocks + 3 * boundary + copies + head
