"""The output layer and its loss in one piece: logits of a few hundred positions at a time, so that they stay in the cache.

With a small model the logits are by far its largest tensor, and softmax over them is bound by memory. Here each piece's gradient is
taken while its logits are at hand; nothing of the size positions x vocabulary is ever kept.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from data_catalog.format.tokens import IGNORED

LOGITS_PER_PIECE = {
    "cpu": 2**20,
    "cuda": 2**27,
}  # logits of one piece: about the second-level cache, or half a gigabyte


class Losses(NamedTuple):
    """Cross entropies at the labels that are not masked, in nats, fp32."""

    total: Float[Tensor, ""]  # the sum over all sequences: what is differentiated
    sequences: Float[Tensor, " sequences"]  # the sum of each, detached


@dataclass(frozen=True)
class HeadSlopes:
    """How fast each sequence's loss changes when the head's weight moves along a direction."""

    direction: Callable[[], Float[Tensor, "vocabulary width"]]
    seen: list[Float[Tensor, " sequences"]] = field(
        default_factory=list
    )  # one a call of `head_loss` that will be differentiated, fp64


_SLOPES: ContextVar[HeadSlopes | None] = ContextVar("slopes", default=None)


@contextmanager
def head_slopes(direction: Callable[[], Float[Tensor, "vocabulary width"]]) -> Iterator[HeadSlopes]:
    """While open, every `head_loss` that will be differentiated also takes `<d loss_j / d weight, V>` for each sequence j.

    The errors at the logits exist nowhere but inside it. One more product of the size of the logits' own.

    Args:
        direction: gives V when a loss is computed; it is not kept.
    """
    slopes = HeadSlopes(direction)
    token = _SLOPES.set(slopes)
    try:
        yield slopes
    finally:
        _SLOPES.reset(token)


def head_loss(
    hidden: Float[Tensor, "sequences tokens width"],
    weight: Float[Tensor, "vocabulary width"],
    labels: Int[Tensor, "sequences tokens"],
) -> Losses:
    """The cross entropies of `softmax(hidden weight^T)`.

    The products run in the type that autocast has chosen, everything else in fp32.
    """
    kept = labels != IGNORED
    device = hidden.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight.dtype
    slopes = _SLOPES.get() if torch.is_grad_enabled() else None
    along = slopes.direction() if slopes is not None else None
    total, tokens, each = _HeadLoss.apply(hidden[kept], weight, labels[kept], dtype, along)  # type: ignore[no-untyped-call]
    owner = torch.arange(len(labels), device=labels.device)[:, None].expand_as(labels)[kept]
    if slopes is not None:
        slopes.seen.append(
            each.new_zeros(len(labels), dtype=torch.float64).index_add_(0, owner, each.double())
        )
    return Losses(total, tokens.new_zeros(len(labels)).index_add_(0, owner, tokens))


class _HeadLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        labels: Tensor,
        dtype: torch.dtype,
        along: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        wants = ctx.needs_input_grad[0] or ctx.needs_input_grad[1]
        rows = max(LOGITS_PER_PIECE.get(hidden.device.type, 2**24) // len(weight), 1)
        narrow = weight.to(dtype)
        along = along.to(dtype) if along is not None else None
        to_hidden = torch.empty_like(hidden) if wants else None
        to_weight = torch.zeros_like(weight, dtype=torch.float32) if wants else None
        losses = hidden.new_empty(len(hidden), dtype=torch.float32)
        slopes = torch.zeros_like(losses) if along is not None else None
        with torch.autocast(hidden.device.type, enabled=False):
            for start in range(0, len(hidden), rows):
                here = slice(start, start + rows)
                part, answers = hidden[here].to(dtype), labels[here, None]
                logits = (part @ narrow.T).float()
                normaliser = logits.logsumexp(1, keepdim=True)
                losses[here] = (normaliser - logits.gather(1, answers)).squeeze(1)
                if to_hidden is not None and to_weight is not None:
                    error = (
                        logits.sub_(normaliser).exp_()
                    )  # softmax, and minus one at the answer: the loss's gradient in the logits
                    error.scatter_add_(1, answers, torch.full_like(normaliser, -1.0))
                    error = error.to(dtype)
                    to_hidden[here] = error @ narrow
                    to_weight += error.T @ part
                    if (
                        along is not None and slopes is not None
                    ):  # <error, V hidden> = <V^T error, hidden>: the narrower product
                        slopes[here] = torch.linalg.vecdot((error @ along).float(), part.float())
        if wants:
            ctx.save_for_backward(to_hidden, to_weight)
        ctx.mark_non_differentiable(losses, *(() if slopes is None else (slopes,)))
        return losses.sum(), losses, slopes

    @staticmethod
    def backward(
        ctx: Any, gradient: Tensor, *_: Tensor | None
    ) -> tuple[Tensor, Tensor, None, None, None]:
        to_hidden, to_weight = ctx.saved_tensors
        return to_hidden * gradient, to_weight * gradient, None, None, None
