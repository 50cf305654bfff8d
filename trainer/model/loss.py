"""A model and its loss in one module, which is wrapped, compiled and run."""

import inspect
from contextlib import nullcontext
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel

from data_catalog.format.tokens import IGNORED
from trainer.model.experts import ExpertBiases, balance_loss, has_balance_loss
from trainer.model.head import Losses, head_loss

TRIED_SEQUENCES, TRIED_TOKENS = 2, 8  # size of the batch that the output layer is tried on
TRIED_LOGIT = 100.0  # standard deviation of its logits, at which no soft cap is linear


class LanguageLoss(nn.Module):
    """A causal model with the cross entropy of its next tokens.

    The output layer is fused with the loss if that gives what the model itself computes. This is
    tried in the first pass. So is whether the model separates documents: their positions begin at
    0, and transformers masks the attention between them.

    Attributes:
        biases: the biases of the model's experts.
        fuses_head: whether the output layer is fused, or None before the first pass.
        separates: whether the model separates documents, or None before the first pass.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        precision: str,
        end_of_text: int | None = None,
        z_loss: float = 0.0,
    ) -> None:
        """Prepare the loss of a model.

        Args:
            model: the model.
            precision: "float32" or "bfloat16".
            end_of_text: token that begins a new document. None: a sequence is one document.
            z_loss: coefficient of the squares of the logits' normalisers in the training loss.
        """
        super().__init__()
        self.model, self.precision, self._end_of_text = model, precision, end_of_text
        self._z_loss = z_loss
        self.biases = ExpertBiases(model)
        self._balances = has_balance_loss(model)
        self.fuses_head: bool | None = None
        self.separates: bool | None = None

    def forward(
        self,
        inputs: Int[Tensor, "sequences tokens"],
        labels: Int[Tensor, "sequences tokens"],
        regularised: bool = False,
        owners: Int[Tensor, "sequences tokens"] | None = None,
    ) -> Losses:
        """Return the losses at `labels`, which are shifted by one token.

        Padding is on the right, where it has no effect.

        Args:
            inputs: the tokens.
            labels: the next token of each.
            regularised: add the z-loss to the total, and the auxiliary loss of a mixture of experts
                times the number of labels. Count the loads of experts that are balanced by biases.
            owners: the sequence of each token, if a row holds several; see `Batch.owners`.
        """
        kept, z_loss = labels != IGNORED, self._z_loss if regularised else 0.0
        options: dict[str, Any] = {"input_ids": inputs, "use_cache": False}
        if regularised and self._balances:
            options["output_router_logits"] = True
        with torch.autocast(
            inputs.device.type, torch.bfloat16, enabled=self.precision == "bfloat16"
        ):
            if self.fuses_head is None:
                self.fuses_head = has_plain_head(self.model, inputs)
                self.separates = separates_documents(self.model, inputs)
            if self.separates and not (owners is None and self._end_of_text is None):
                options["position_ids"] = positions(inputs, owners, self._end_of_text)
            with self.biases.counting(kept) if regularised else nullcontext():
                outputs = (self.model.base_model if self.fuses_head else self.model)(**options)
            if self.fuses_head:
                head = self.model.get_output_embeddings()  # type: ignore[no-untyped-call]
                losses = head_loss(outputs.last_hidden_state, head.weight, labels, z_loss)
            else:
                losses = _logit_losses(outputs.logits, labels, z_loss)
            if regularised and self._balances:
                loss = balance_loss(self.model, outputs.router_logits, kept)
                losses = losses._replace(total=losses.total + loss * kept.sum())
        return losses


def positions(
    inputs: Int[Tensor, "rows tokens"],
    owners: Int[Tensor, "rows tokens"] | None,
    end_of_text: int | None,
) -> Int[Tensor, "rows tokens"]:
    """Return the position of each token in its document.

    A document begins at each end-of-text, which closes the one before, and at each new owner.
    """
    begins = torch.zeros_like(inputs, dtype=torch.bool)
    if end_of_text is not None:
        begins |= inputs == end_of_text
    if owners is not None:
        begins[:, 1:] |= owners[:, 1:] != owners[:, :-1]
    places = torch.arange(inputs.shape[1], device=inputs.device).expand_as(inputs)
    return places - torch.where(begins, places, 0).cummax(1).values


@torch.no_grad()
def separates_documents(model: PreTrainedModel, inputs: Int[Tensor, "sequences tokens"]) -> bool:
    """Return whether positions that restart separate two documents in a row of a model.

    The model runs with another first document. Nothing in the config is relied on.

    Args:
        model: the model.
        inputs: some tokens.
    """
    if any(
        "position_ids" not in inspect.signature(module.forward).parameters
        for module in (model, model.base_model)
    ):
        return False
    half = min(TRIED_TOKENS, inputs.shape[1]) // 2
    both = torch.stack([inputs[0, : 2 * half], inputs[0, half : 2 * half].repeat(2)])
    restarting = torch.arange(half, device=inputs.device).repeat(2).expand_as(both)
    through, separate = (
        model(input_ids=both, use_cache=False, **options).logits[:, half:].float()
        for options in ({}, {"position_ids": restarting})
    )
    change, left = (float((one[0] - one[1]).abs().max()) for one in (through, separate))
    return left == 0 < change  # The weight of masked attention is exactly 0.


def _logit_losses(logits: Tensor, labels: Int[Tensor, "sequences tokens"], z_loss: float) -> Losses:
    logits = logits.float().flatten(0, 1)
    tokens = functional.cross_entropy(
        logits, labels.flatten(), ignore_index=IGNORED, reduction="none"
    )
    total = tokens.sum()
    if z_loss:
        kept = labels.flatten() != IGNORED
        total = total + z_loss * torch.where(kept, logits.logsumexp(1), 0.0).square().sum()
    return Losses(total, tokens.detach().view_as(labels))


def _parts(model: PreTrainedModel) -> tuple[nn.Module, nn.Linear] | None:
    """Return the model without its output layer, and this layer, if it is linear without bias."""
    head: Any = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    body: nn.Module = model.base_model
    plain = type(head) is nn.Linear and getattr(head, "bias", None) is None
    return (body, head) if plain and body is not model else None


@torch.no_grad()
def has_plain_head(model: PreTrainedModel, inputs: Int[Tensor, "sequences tokens"]) -> bool:
    """Return whether a model's logits are the product of its hidden state and the head's weight.

    The model runs on the begin of `inputs`, with hidden states so large that any scale, cap or
    other change of the logits shows. Nothing in the config is relied on.

    Args:
        model: the model.
        inputs: some tokens.
    """
    if (parts := _parts(model)) is None:
        return False
    body, head = parts
    inputs = inputs[:TRIED_SEQUENCES, :TRIED_TOKENS]
    seen: list[Tensor] = []
    hidden = getattr(body(input_ids=inputs, use_cache=False), "last_hidden_state", None)
    if hidden is None:
        return False
    spread = functional.linear(hidden, head.weight).float().std()
    scale = TRIED_LOGIT / spread.clamp_min(torch.finfo(torch.float32).tiny)

    def enlarge(_: nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        seen.append(given[0])
        return (given[0] * scale.to(given[0].dtype),)

    with head.register_forward_pre_hook(enlarge):
        logits = model(input_ids=inputs, use_cache=False).logits
    wanted = functional.linear(hidden * scale.to(hidden.dtype), head.weight)
    return len(seen) == 1 and _close(seen[0], hidden) and _close(logits, wanted)


def _close(found: Tensor, wanted: Tensor) -> bool:
    difference = (found.float() - wanted.float()).abs().max()
    return found.shape == wanted.shape and bool(difference <= 0.01 * wanted.float().abs().max())


@torch.no_grad()
def seems_plain(model: PreTrainedModel) -> bool:
    """Return whether a model returns what its output layer does, for models without content."""
    if (parts := _parts(model)) is None:
        return False
    seen: list[Tensor] = []
    with parts[1].register_forward_hook(lambda _, __, output: seen.append(output)):
        inputs = torch.zeros(TRIED_SEQUENCES, TRIED_TOKENS, dtype=torch.long)
        logits = model(input_ids=inputs.to(model.device), use_cache=False).logits
    return len(seen) == 1 and logits is seen[0]
