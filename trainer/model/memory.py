"""Memory of training, found by running the model on tensors without storage.

One step runs on torch's fake tensors, which have shapes but no content, so that it takes neither
memory nor arithmetic. The sizes of all tensors that live at a time are added up. Memory that a
kernel uses inside and that allocators keep is not seen.
"""

import weakref
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, computed_field
from torch import Tensor
from torch._subclasses import FakeTensorMode
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from data_catalog.errors import UserError
from trainer.config import Model, Training
from trainer.model.experts import check_balance
from trainer.model.head import LOGITS_PER_PIECE, position_losses
from trainer.model.loss import seems_plain
from trainer.model.model import preset_config
from trainer.model.parallel import decoder_layers, prepare_layers

FLOAT32_BYTES = 4


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
    """Largest memory of a forward and backward pass, without the gradients of the weights."""

    @computed_field  # type: ignore[prop-decorator]
    @property
    def total(self) -> int:
        """Sum of all parts."""
        return self.weights + self.gradients + self.optimizer + self.alignment + self.activations


def empty_model(
    config: Model, vocabulary: int, sequence_tokens: int, device: Literal["cpu", "cuda"] = "cpu"
) -> PreTrainedModel | None:
    """Return the model of `config` with fake parameters; None for a hub name.

    Hub names are not looked up.

    Raises:
        UserError: A local path has no config of a causal language model, its experts cannot be
            balanced, or the sizes of a preset do not fit each other.
    """
    path = config.path
    if path is not None and not Path(path).exists():
        return None
    try:
        loaded = (
            preset_config(config, vocabulary, sequence_tokens)
            if path is None
            else AutoConfig.from_pretrained(path, local_files_only=True, trust_remote_code=False)
        )
        with FakeTensorMode(), torch.device(device):
            model: PreTrainedModel = AutoModelForCausalLM.from_config(loaded, dtype=torch.float32)  # type: ignore[no-untyped-call]
    except (OSError, ValueError) as error:
        raise UserError(
            f"model.path {path}: There is no causal language model ({error}). Correct the path."
        ) from error
    check_balance("model.path", str(path), model)
    model.train(mode=False)
    return model


def memory_need(model: PreTrainedModel, training: Training, *, aligns: bool) -> MemoryBytes | None:
    """Return the peak memory of one process, without the overhead of libraries and allocators.

    Args:
        model: an `empty_model`, which is used up.
        training: the training settings.
        aligns: whether a target gradient is kept.

    Returns:
        The memory, or None if the model does not run without content.
    """
    state = FLOAT32_BYTES * model.num_parameters()
    try:
        activations = activation_bytes(model, training)
    except (RuntimeError, TypeError, ValueError):  # such as an operation that reads content
        return None
    return MemoryBytes(
        weights=state,
        gradients=state,
        optimizer=2 * state,
        alignment=state if aligns else 0,
        activations=activations,
    )


def activation_bytes(model: PreTrainedModel, training: Training) -> int:
    """Return the largest memory of the passes of a step, without the gradients of the weights.

    The gradients of a step's first micro-batch exist during the second, if there are several.

    Args:
        model: an `empty_model`. Its layers are prepared as `training` says.
        training: the training settings.
    """
    device = model.device.type
    prepare_layers(
        decoder_layers(model), compiled=False, checkpointed=training.checkpoint_activations
    )
    size = min(training.micro_batch_sequences, training.batch_sequences)
    gradients = FLOAT32_BYTES * sum(p.numel() for p in model.parameters() if p.requires_grad)
    with ExitStack() as stack:
        stack.enter_context(next(model.parameters()).fake_mode)  # type: ignore[attr-defined]
        peak = stack.enter_context(_Peak([*model.parameters(), *model.buffers()]))
        fused = seems_plain(model)
        inputs = torch.zeros(size, training.sequence_tokens, dtype=torch.long, device=device)
        for _ in range(1 if training.batch_sequences <= size else 2):
            with torch.autocast(device, torch.bfloat16, enabled=training.precision == "bfloat16"):
                loss, kept = (_fused if fused else _plain)(model, inputs)
            loss.backward()  # type: ignore[no-untyped-call]
            del loss, kept
    return max(peak.most - gradients, 0)


def _plain(model: PreTrainedModel, inputs: Tensor) -> tuple[Tensor, Tensor | None]:
    logits = model(input_ids=inputs, use_cache=False).logits.float().flatten(0, 1)
    return functional.cross_entropy(logits, inputs.flatten(), reduction="none").sum(), None


def _fused(model: PreTrainedModel, inputs: Tensor) -> tuple[Tensor, Tensor | None]:
    """Run the fused output layer on two pieces of positions, because more need no more logits.

    Returns:
        The loss, and the place of the gradient of the other positions, which is kept with it.
    """
    hidden = model.base_model(input_ids=inputs, use_cache=False).last_hidden_state.flatten(0, 1)
    weight = model.get_output_embeddings().weight  # type: ignore[no-untyped-call]
    count = 2 * max(LOGITS_PER_PIECE[inputs.device.type] // len(weight), 1)
    kept = hidden.clone()  # the positions that have a label
    loss, *_ = position_losses(kept[:count], weight, inputs.flatten()[:count])
    return loss, torch.empty_like(kept[count:])


class _Peak(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """A context that adds up the sizes of the storages that live at a time.

    Attributes:
        most: the largest sum, in bytes.
    """

    def __init__(self, existing: Sequence[Tensor]) -> None:
        """Do not count the storages of `existing`."""
        super().__init__()  # type: ignore[no-untyped-call]
        self.most = self._now = 0
        self._sizes = dict.fromkeys((_storage(tensor) for tensor in existing), 0)

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func is torch.ops.aten._grouped_mm.default:
            # Without content, torch knows this operation in bfloat16 only.
            result = _grouped(*args, **(kwargs or {}))
        else:
            result = func(*args, **(kwargs or {}))
        for tensor in tree_iter(result):
            if isinstance(tensor, Tensor) and (key := _storage(tensor)) not in self._sizes:
                storage = tensor.untyped_storage()
                self._sizes[key] = storage.nbytes()
                self._now += storage.nbytes()
                self.most = max(self.most, self._now)
                weakref.finalize(storage, self._forget, key)
        return result

    def _forget(self, key: int) -> None:
        self._now -= self._sizes.pop(key)


def _grouped(left: Tensor, right: Tensor, offsets: Tensor, *_: Any, **__: Any) -> Tensor:
    """Return an empty product of groups of rows with a matrix each, or of groups of columns."""
    if right.ndim == 3:
        return left.new_empty(left.shape[0], right.shape[-1])
    return left.new_empty(len(offsets), left.shape[0], right.shape[-1])


def _storage(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)
