"""The reference backend: one backward pass per basis member.

It needs the memory of one extra gradient, and one sum of a small table over the processes.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from data_catalog.format.tokens import IGNORED
from trainer.alignment import Alignment, Direction
from trainer.alignment.direction import dots, gradients
from trainer.config import Scores
from trainer.model.engine import Engine
from trainer.sampling.batches import Batch

CLIP_NORM = 1.0
# Number of parts of a member's minibatch, whose differences give the standard error. Parts take 40
# % more time with 8 sequences of 128 tokens on a CPU.
PARTS = 4


def exact_alignment(
    engine: Engine, direction: Direction, members: Sequence[Callable[[], Batch]], scores: Scores
) -> Alignment:
    """Return `a_i = <g_i, v>`, with g_i the gradient of member i's mean loss per token.

    For "raw" and "normalised" scores this is the plain product. For "clipped" scores each gradient
    longer than 1 is first scaled to norm 1, so that one step size suits all model sizes and phases.
    For "cosine" scores each gradient is scaled to norm 1. Products are accumulated in fp64.

    For "raw" and "normalised" scores the minibatch is run in n parts that add up to one gradient.
    With D_p the contribution of part p to the product and t_p its share of the tokens, the error is
    `error^2 = n / (n - 1) sum_p (D_p - t_p sum D)^2` (delta method of a ratio, Cochran 1977,
    section 6.4). Scaled scores have no such error, because the noise of the norm is unknown. They
    are run in one part. `shares` belong to the plain products for all kinds of scores.

    If each process holds the whole model, process r runs members r, r + world, ... alone. If the
    model is sharded, each process runs its slice of every member.

    Args:
        engine: the model.
        direction: v.
        members: functions that read each member's whole minibatch.
        scores: the scaling of the scores.
    """
    team, whole, parts = (
        engine.team,
        not engine.sharded,
        PARTS if scores in ("raw", "normalised") else 1,
    )
    table = torch.zeros(len(members), 2 * parts + 3, dtype=torch.float64, device=team.device)
    by_tensor = torch.zeros(len(direction.tensors), dtype=torch.float64, device=team.device)
    for i in range(team.rank, len(members), team.world) if whole else range(len(members)):
        engine.clear()
        total = torch.zeros_like(by_tensor)
        for p, part in enumerate(
            _cut(members[i](), parts, *((0, 1) if whole else (team.rank, team.world)))
        ):
            share, sequences = engine.backward(part, shared=not whole)
            gradient = gradients(engine)
            before, total = total, dots(gradient, direction.tensors)
            table[i, p] = (total - before).sum()
            table[i, parts + p] = (part.labels != IGNORED).sum()
            table[i, -3:] += torch.stack(
                [share, share.new_tensor(len(sequences)), share.new_zeros(())]
            )
        table[i, -1] = dots(gradient, gradient).sum()
        by_tensor += total
    engine.clear()
    sums = team.sum(torch.cat([table.reshape(-1), by_tensor])).cpu()
    return _alignment(
        sums[: table.numel()].view_as(table).numpy(), sums[table.numel() :], direction, scores
    )


def _cut(batch: Batch, parts: int, rank: int, slices: int) -> Iterator[Batch]:
    """Yield the slice of process `rank` in each part of a member's minibatch."""
    count = len(batch.inputs)
    parts = max(min(parts, count // slices), 1)
    for p in range(parts):
        first, size = p * count // parts, (p + 1) * count // parts - p * count // parts
        own = slice(first + rank * size // slices, first + (rank + 1) * size // slices)
        yield Batch(batch.inputs[own], batch.labels[own], batch.total)


def _alignment(
    table: Float[np.ndarray, "basis columns"],
    by_tensor: Float[Tensor, " tensors"],
    direction: Direction,
    scores: Scores,
) -> Alignment:
    (parts, tokens), (losses, sequences, squared) = (
        np.split(table[:, :-3], 2, axis=1),
        table[:, -3:].T,
    )
    products, count = parts.sum(1), (tokens > 0).sum(1)
    scale = _scale(np.sqrt(squared), scores) * _scale(np.array(direction.norm), scores)
    residuals = parts - tokens / tokens.sum(1, keepdims=True) * products[:, None]
    freedom = np.where(count > 1, count - 1, np.nan)  # A single part has no spread.
    errors = np.sqrt(count / freedom * (residuals**2).sum(1))
    shares = dict(zip(direction.tensors, (by_tensor / len(table)).tolist(), strict=True))
    return Alignment(products * scale, errors, losses, sequences, shares)


def _scale(norms: Float[np.ndarray, "*basis"], scores: Scores) -> Float[np.ndarray, "*basis"]:
    if scores in ("raw", "normalised"):
        return np.ones_like(norms)
    safe = np.where(norms > 0, norms, 1.0)
    return np.asarray(1.0 / safe if scores == "cosine" else np.minimum(1.0, CLIP_NORM / safe))
