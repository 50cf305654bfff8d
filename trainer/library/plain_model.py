"""Any PyTorch model as one that can be measured."""

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel
from transformers import PreTrainedConfig, PreTrainedModel

from data_catalog.errors import UserError
from trainer.model.loss import TRIED_TOKENS


class PlainModel(PreTrainedModel):  # type: ignore[no-untyped-call]
    """A model that is not of transformers, with the interface of one.

    The model maps tokens `(sequences, tokens)` to logits `(sequences, tokens, vocabulary)`, to a
    tuple that begins with them, or to an object with an attribute `logits`.
    """

    def __init__(self, model: nn.Module, vocabulary: int) -> None:
        """Wrap `model`, whose parameters are used as they are.

        Args:
            model: the model.
            vocabulary: number of token ids of the catalog's tokenizer.
        """
        super().__init__(PreTrainedConfig(vocab_size=vocabulary))  # type: ignore[call-arg]
        self.model = model

    def get_output_embeddings(self) -> None:
        """Return None, because the output layer is not known."""

    def forward(self, input_ids: Tensor, use_cache: bool = False) -> SimpleNamespace:  # noqa: ARG002 - transformers
        """Return an object with the logits."""
        output: Any = self.model(input_ids)
        output = output[0] if isinstance(output, tuple) else output
        return SimpleNamespace(logits=getattr(output, "logits", output))


def measurable(model: nn.Module, vocabulary: int) -> PreTrainedModel:
    """Return the model below the wrappers of torch, with the interface of transformers.

    Args:
        model: the model, which may be compiled or wrapped by DistributedDataParallel.
        vocabulary: number of token ids of the catalog's tokenizer.

    Raises:
        UserError: The model is sharded.
    """
    while True:
        if isinstance(model, DistributedDataParallel):
            model = model.module
        elif isinstance(model, torch._dynamo.OptimizedModule):
            model = model._orig_mod
        else:
            break
    if any(isinstance(parameter, DTensor) for parameter in model.parameters()):
        raise UserError(
            "model: Its parameters are sharded, which after_step cannot measure. Learn the mixture "
            "with `clustermix train`, or with a small model, and follow it with the mixer `replay`."
        )
    return model if isinstance(model, PreTrainedModel) else PlainModel(model, vocabulary)


@torch.no_grad()
def require_shifted_labels(model: nn.Module) -> None:
    """Check that the loss of a model of transformers takes labels that are already shifted.

    Raises:
        UserError: It shifts them once more.
    """
    tokens = torch.arange(TRIED_TOKENS, device=next(model.parameters()).device)[None]
    labels = tokens.roll(-1, 1) % 2  # differ from what a second shift would give
    outputs = model(input_ids=tokens, labels=labels, shift_labels=labels, use_cache=False)
    wanted = functional.cross_entropy(outputs.logits.float().flatten(0, 1), labels.flatten())
    if not torch.isclose(outputs.loss.float(), wanted, rtol=0.01):
        raise UserError(
            f"model: The loss of {type(model).__name__} shifts its labels and ignores "
            "shift_labels. Compute the loss from its logits and `labels` of the dataset."
        )
