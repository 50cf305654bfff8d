"""The output layer fused with its loss.

The logits of a small model are by far its largest tensor, and their softmax is bound by memory.
Here they are computed for a few hundred positions at a time, so that they stay in the cache. The
gradient of each piece is computed along with its logits. No tensor of the size positions x
vocabulary is ever allocated.
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

# Maximum number of logits per piece: about the size of the second-level cache on a CPU, and half a
# gigabyte on a GPU.
LOGITS_PER_PIECE = {"cpu": 2**20, "cuda": 2**27}


class Losses(NamedTuple):
    """Cross entropies at the labels that are not masked, in nats, fp32."""

    total: Float[Tensor, ""]
    """Sum over all sequences and of all additions, which is differentiated."""
    tokens: Float[Tensor, "sequences tokens"]
    """Loss at each label, detached. It is 0 at masked labels."""

    @property
    def sequences(self) -> Float[Tensor, " sequences"]:
        """Sum of each sequence, detached."""
        return self.tokens.sum(1)


@dataclass(frozen=True)
class HeadSlopes:
    """Derivatives of each sequence's loss along a direction of the head's weight."""

    direction: Callable[[], Float[Tensor, "vocabulary width"]]
    """Function that returns the direction."""
    slopes: list[Float[Tensor, " sequences"]] = field(default_factory=list)
    """Derivatives for each call of `head_loss` that will be differentiated, fp64."""


_SLOPES: ContextVar[HeadSlopes | None] = ContextVar("slopes", default=None)


@contextmanager
def head_slopes(direction: Callable[[], Float[Tensor, "vocabulary width"]]) -> Iterator[HeadSlopes]:
    """Return a context in which `head_loss` also computes slopes, `<d loss_j / d weight, V>`.

    There is one per sequence j. This applies to calls that will be differentiated. The gradient at
    the logits exists only inside `head_loss`, so the slopes are computed there. They take one more
    product of the size of that of the logits.

    Args:
        direction: returns V. It is called for each loss, and V is not kept.
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
    z_loss: float = 0.0,
) -> Losses:
    """Return the cross entropies of `softmax(hidden weight^T)`.

    The products run in the type that autocast has chosen, everything else in fp32.

    Args:
        hidden: the hidden states.
        weight: the weight of the output layer.
        labels: the labels.
        z_loss: coefficient of the squares of the normalisers (log-sum-exp of the logits), which are
            added to the total, and whose gradient is part of the slopes.
    """
    kept = labels != IGNORED
    slopes = _SLOPES.get() if torch.is_grad_enabled() else None
    along = slopes.direction() if slopes is not None else None
    total, tokens, each = position_losses(hidden[kept], weight, labels[kept], along, z_loss)
    if slopes is not None and each is not None:
        owner = torch.arange(len(labels), device=labels.device)[:, None].expand_as(labels)[kept]
        slopes.slopes.append(
            each.new_zeros(len(labels), dtype=torch.float64).index_add_(0, owner, each.double())
        )
    return Losses(total, tokens.new_zeros(labels.shape).masked_scatter_(kept, tokens))


def position_losses(
    hidden: Float[Tensor, "positions width"],
    weight: Float[Tensor, "vocabulary width"],
    labels: Int[Tensor, " positions"],
    along: Float[Tensor, "vocabulary width"] | None = None,
    z_loss: float = 0.0,
) -> tuple[Float[Tensor, ""], Float[Tensor, " positions"], Float[Tensor, " positions"] | None]:
    """Return the total, the loss at each label, and its slope along `along` if any.

    The total is the sum of the losses and of the squares of the normalisers times `z_loss`.
    """
    device = hidden.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight.dtype
    total, losses, slopes = _HeadLoss.apply(  # type: ignore[no-untyped-call]
        hidden, weight, labels, dtype, along, z_loss
    )
    return total, losses, slopes


class _HeadLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        labels: Tensor,
        dtype: torch.dtype,
        along: Tensor | None,
        z_loss: float,
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        wants = ctx.needs_input_grad[0] or ctx.needs_input_grad[1]
        rows = max(LOGITS_PER_PIECE.get(hidden.device.type, 2**24) // len(weight), 1)
        narrow = weight.to(dtype)
        along = along.to(dtype) if along is not None else None
        to_hidden = torch.empty_like(hidden) if wants else None
        to_weight = torch.zeros_like(weight, dtype=torch.float32) if wants else None
        losses = hidden.new_empty(len(hidden), dtype=torch.float32)
        squares = losses.new_zeros(())
        slopes = torch.zeros_like(losses) if along is not None else None
        with torch.autocast(hidden.device.type, enabled=False):
            for start in range(0, len(hidden), rows):
                here = slice(start, start + rows)
                part, answers = hidden[here].to(dtype), labels[here, None]
                logits = (part @ narrow.T).float()
                normaliser = logits.logsumexp(1, keepdim=True)
                losses[here] = (normaliser - logits.gather(1, answers)).squeeze(1)
                if z_loss:
                    squares += normaliser.square().sum()
                if to_hidden is not None and to_weight is not None:
                    # The gradient at the logits is the softmax, minus one at the label. That of
                    # the square of the normaliser is the softmax times twice the normaliser.
                    error = logits.sub_(normaliser).exp_()
                    if z_loss:
                        error *= 1 + 2 * z_loss * normaliser
                    error.scatter_add_(1, answers, torch.full_like(normaliser, -1.0))
                    error = error.to(dtype)
                    to_hidden[here] = error @ narrow
                    to_weight += error.T @ part
                    if along is not None and slopes is not None:
                        # `<V^T error, hidden>` is a smaller product than `<error, V hidden>`.
                        slopes[here] = torch.linalg.vecdot((error @ along).float(), part.float())
        if wants:
            ctx.save_for_backward(to_hidden, to_weight)
        ctx.mark_non_differentiable(losses, *(() if slopes is None else (slopes,)))
        return losses.sum() + z_loss * squares, losses, slopes

    @staticmethod
    def backward(
        ctx: Any, gradient: Tensor, *_: Tensor | None
    ) -> tuple[Tensor, Tensor, None, None, None, None]:
        to_hidden, to_weight = ctx.saved_tensors
        return to_hidden * gradient, to_weight * gradient, None, None, None, None
