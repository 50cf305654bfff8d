"""The reference backend: one backward pass per basis member.

It needs the memory of one extra gradient, and one sum of a small table over the processes.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from data_catalog.format.tokens import IGNORED
from trainer.alignment import Alignment, Direction
from trainer.alignment.direction import dots, gradients
from trainer.alignment.probes import Probe
from trainer.mixture_config import CLIPPED_SCORES, Scores
from trainer.model.engine import Engine
from trainer.sampling.batches import Batch

CLIP_NORM = 1.0
# Number of parts of a member's minibatch, whose differences give the standard error. Parts take 40
# % more time with 8 sequences of 128 tokens on a CPU.
PARTS = 4


def exact_alignment(
    engine: Engine,
    direction: Direction,
    members: Sequence[Probe],
    scores: Scores,
    *,
    without_own: bool = False,
) -> Alignment:
    """Return `a_i = <g_i, v>`, with g_i the gradient of member i's mean loss per token.

    This is the plain product, except for two kinds of scores. For "clipped" scores each gradient
    longer than 1 is first scaled to norm 1, so that one step size suits all model sizes and phases.
    For "cosine" scores each gradient is scaled to norm 1. Products are accumulated in fp64.

    For plain products the minibatch is run in n parts that add up to one gradient.
    With D_p the contribution of part p to the product and t_p its share of the tokens, the error is
    `error^2 = n / (n - 1) sum_p (D_p - t_p sum D)^2` (delta method of a ratio, Cochran 1977,
    section 6.4). Scaled scores have no such error, because the noise of the norm is unknown. They
    are run in one part. `shares` belong to the plain products for all kinds of scores.

    If v is the sum of the gradients of these same minibatches, a member's own gradient can be left
    out of the sum: `<g_i, v - g_i> = <g_i, v> - |g_i|^2`. All that remains was drawn independently
    of g_i, so that the product is unbiased. Otherwise the square of g_i, most of which is noise,
    would outweigh the rest. No pass is added. Such a score has no error, and is run in one part.

    If each process holds the whole model, process r runs members r, r + world, ... alone. If the
    model is sharded, each process runs its slice of every member.

    Args:
        engine: the model.
        direction: v.
        members: functions that read each member's whole minibatch. A member without one has NaN
            for its values, and an effective size of 0.
        scores: the scaling of the scores.
        without_own: leave g_i out of v, which is the sum of the gradients of `members`.
    """
    team, whole, parts = (
        engine.team,
        not engine.sharded,
        1 if scores in CLIPPED_SCORES or without_own else PARTS,
    )
    table = torch.zeros(len(members), 2 * parts + 3, dtype=torch.float64, device=team.device)
    by_tensor = torch.zeros(len(direction.tensors), dtype=torch.float64, device=team.device)
    for i in range(team.rank, len(members), team.world) if whole else range(len(members)):
        engine.clear()
        probe, total = members[i], torch.zeros_like(by_tensor)
        if probe is None:
            table[i], table[i, -2] = torch.nan, 0.0
            continue
        for p, part in enumerate(
            _cut(probe(), parts, *((0, 1) if whole else (team.rank, team.world)))
        ):
            share, sequences = engine.backward(part, shared=not whole)
            gradient = gradients(engine)
            before, total = total, dots(gradient, direction.tensors)
            table[i, p] = (total - before).sum()
            table[i, parts + p] = (part.labels != IGNORED).sum()
            table[i, -3:] += torch.stack(
                [share, share.new_tensor(len(sequences)), share.new_zeros(())]
            )
        squares = dots(gradient, gradient)
        table[i, -1] = squares.sum()
        by_tensor += total
        if without_own:
            own = dict(zip(gradient, squares, strict=True))
            zero = squares.new_zeros(())
            by_tensor -= torch.stack([own.get(name, zero) for name in direction.tensors])
    engine.clear()
    sums = team.sum(torch.cat([table.reshape(-1), by_tensor])).cpu()
    return _alignment(
        sums[: table.numel()].view_as(table).numpy(),
        sums[table.numel() :],
        direction,
        scores,
        without_own,
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
    without_own: bool,
) -> Alignment:
    (parts, tokens), (losses, sequences, squared) = (
        np.split(table[:, :-3], 2, axis=1),
        table[:, -3:].T,
    )
    products, count = parts.sum(1), (tokens > 0).sum(1)
    norms = np.full_like(squared, direction.norm)
    if without_own:  # |v - g|^2 = |v|^2 - 2 <g, v> + |g|^2
        norms = np.sqrt(np.maximum(norms**2 - 2 * products + squared, 0.0))
        products = products - squared
    scale = _scale(np.sqrt(squared), scores) * _scale(norms, scores)
    residuals = parts - tokens / tokens.sum(1, keepdims=True) * products[:, None]
    freedom = np.where(count > 1, count - 1, np.nan)  # A single part has no spread.
    errors = np.sqrt(count / freedom * (residuals**2).sum(1))
    measured = int(np.count_nonzero(sequences))
    shares = dict(zip(direction.tensors, (by_tensor / measured).tolist(), strict=True))
    return Alignment(products * scale, errors, losses, sequences, shares)


def _scale(norms: Float[np.ndarray, "*basis"], scores: Scores) -> Float[np.ndarray, "*basis"]:
    if scores not in CLIPPED_SCORES:
        return np.ones_like(norms)
    safe = np.where(norms > 0, norms, 1.0)
    return np.asarray(1.0 / safe if scores == "cosine" else np.minimum(1.0, CLIP_NORM / safe))
