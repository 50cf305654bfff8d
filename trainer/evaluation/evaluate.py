"""Held-out losses with standard errors, on fixed sequences, for all sets in one pass."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from data_catalog.format.layout import Levels
from data_catalog.format.tokens import IGNORED
from trainer.distributed import process_slice
from trainer.model.engine import Engine
from trainer.sampling.batches import Batch, Pool
from trainer.sampling.permutation import permutation_key, permute

# Minimum number of sequences per domain. The standard error of fewer is unreliable.
MINIMUM_DOMAIN_SEQUENCES = 8


@dataclass(frozen=True)
class EvaluationSet:
    """The sequences of one held-out set."""

    name: str
    """Name in the metrics: target/validation, target/test, general, NAME/test or domain/NUMBER."""
    pool: Pool
    leaves: Int[np.ndarray, " n"]
    """Leaf of each sequence."""
    rows: Int[np.ndarray, " n"]
    """Number of each sequence in its leaf."""


@dataclass(frozen=True)
class HeldOutLoss:
    """Loss on one held-out set."""

    set: str
    """Name of the set."""
    loss: float
    """Mean loss in nats, per token or, for questions, per question."""
    error: float
    """Standard error of the loss over the sequences or questions, as a sample from an infinite
    population. NaN for a single one."""
    sequences: int
    """Number of sequences or questions."""
    bits_per_byte: float | None = None
    """Loss in bits per UTF-8 byte of text. None for questions, and for sets without text."""
    accuracy: float | None = None
    """Share of questions whose right choice has the highest log-likelihood."""
    accuracy_error: float | None = None
    """Standard error of `accuracy`."""
    accuracy_normalised: float | None = None
    """Accuracy with the log-likelihood of each choice divided by its number of bytes."""

    def record(self) -> dict[str, str | float | int]:
        """Return the values for metrics.jsonl."""
        return {name: value for name, value in vars(self).items() if value is not None}


def evaluation_set(name: str, pool: Pool, maximum_sequences: int, seed: int) -> EvaluationSet:
    """Return up to `maximum_sequences` sequences of `pool`, chosen uniformly.

    For the corpus this is the natural mixture. The name has no influence on the choice.
    """
    leaves, rows = pool.in_order(seed, "evaluate", 0, min(maximum_sequences, pool.total))
    return EvaluationSet(name, pool, leaves, rows)


def domain_sets(
    pool: Pool, levels: Levels, maximum_sequences: int, seed: int
) -> list[EvaluationSet]:
    """Return a set for every top-level domain with enough sequences.

    All domains have the same number of sequences, chosen uniformly. If a domain has fewer, the
    others get more. Domains with fewer than `MINIMUM_DOMAIN_SEQUENCES` sequences have no set. All
    others have at least that number, even if the sum then exceeds `maximum_sequences`.

    Args:
        pool: the held-out sequences.
        levels: granularities of the catalog's domains.
        maximum_sequences: maximum number of sequences of all sets together. 0 gives no sets.
        seed: seed of the choice.
    """
    if not maximum_sequences:
        return []
    top = levels.granularities[0]
    sizes = pool.sequences.reshape(top, -1).sum(1)
    begins = np.cumsum(sizes) - sizes
    counts = np.maximum(
        _evenly(sizes, maximum_sequences), np.minimum(sizes, MINIMUM_DOMAIN_SEQUENCES)
    )
    sets = []
    for domain in np.flatnonzero(sizes >= MINIMUM_DOMAIN_SEQUENCES).tolist():
        places = np.arange(counts[domain], dtype=np.uint64)
        chosen = permute(
            places, np.uint64(sizes[domain]), permutation_key(seed, "evaluate/domain", domain)
        ).astype(np.int64)
        sets.append(EvaluationSet(f"domain/{domain}", pool, *pool.locate(begins[domain] + chosen)))
    return sets


def held_out_losses(
    engine: Engine, sets: Sequence[EvaluationSet], byte_lengths: Int[np.ndarray, " vocabulary"]
) -> list[HeldOutLoss]:
    """Return the mean loss of each set, in one pass over all of them.

    Each process evaluates its slice of the sequences.

    Args:
        engine: the model.
        sets: the sets.
        byte_lengths: UTF-8 bytes per token; see `trainer.evaluation.tokenizer`.
    """
    owners = np.repeat(np.arange(len(sets)), [len(chosen.leaves) for chosen in sets])
    count = len(owners)
    batch, owners = _read(sets, owners, process_slice(count, engine.team.rank, engine.team.world))
    nats = engine.losses(engine.packed(batch)).double().cpu()
    kept = batch.labels != IGNORED
    tokens = kept.sum(1).double()
    lengths = torch.from_numpy(byte_lengths)[batch.labels.clamp(min=0)].mul_(kept).sum(1).double()
    columns = torch.cat([lengths[:, None], moments(nats, tokens)], 1)
    sums = torch.zeros(len(sets), columns.shape[1], dtype=torch.float64).index_add_(
        0, torch.from_numpy(owners), columns
    )
    losses = []
    for chosen, (text, *of_set) in zip(
        sets, engine.team.sum(sums.to(engine.team.device)).tolist(), strict=True
    ):
        loss, error = ratio_and_error(*of_set)
        bits = of_set[1] / math.log(2) / text if text else None
        losses.append(HeldOutLoss(chosen.name, loss, error, len(chosen.leaves), bits))
    return losses


def moments(values: Float[Tensor, " n"], sizes: Float[Tensor, " n"]) -> Float[Tensor, "n 6"]:
    """Return the terms whose sums `ratio_and_error` needs."""
    return torch.stack(
        [torch.ones_like(values), values, sizes, values * values, values * sizes, sizes * sizes], 1
    )


def ratio_and_error(
    count: float,
    values: float,
    sizes: float,
    values_values: float,
    values_sizes: float,
    sizes_sizes: float,
) -> tuple[float, float]:
    """Return `R = sum_j r_j / sum_j t_j` of n pairs and its standard error.

    The arguments are the sums of the pairs' moments. The error is
    `sqrt(n / (n - 1) * sum_j (r_j - R t_j)^2) / sum_j t_j`, that of a sample from an infinite
    population (Cochran 1977, section 6.3). It is NaN for a single pair. If all sizes are one, these
    are the mean and its ordinary standard error.
    """
    ratio = values / sizes
    squares = values_values - 2 * ratio * values_sizes + ratio * ratio * sizes_sizes
    squares = max(squares, 0.0)  # Rounding may make it negative.
    return ratio, math.sqrt(count / (count - 1) * squares) / sizes if count > 1 else math.nan


def _read(
    sets: Sequence[EvaluationSet], owners: Int[np.ndarray, " n"], own: slice
) -> tuple[Batch, Int[np.ndarray, " m"]]:
    """Return this process's sequences of all sets, and the set of each."""
    first = 0
    parts = []
    for chosen in sets:
        start, stop = (
            min(max(edge - first, 0), len(chosen.leaves)) for edge in (own.start, own.stop)
        )
        parts.append((chosen, slice(start, stop)))
        first += len(chosen.leaves)
    for pool in {id(chosen.pool): chosen.pool for chosen in sets}.values():
        draws = [(each.leaves[part], each.rows[part]) for each, part in parts if each.pool is pool]
        pool.expect(*map(np.concatenate, zip(*draws, strict=True)))
    batches = [chosen.pool.read(chosen.leaves, chosen.rows, part) for chosen, part in parts]
    whole = Batch(
        torch.cat([batch.inputs for batch in batches]),
        torch.cat([batch.labels for batch in batches]),
        sum(batch.total for batch in batches),
    )
    return whole, owners[own]


def _evenly(sizes: Int[np.ndarray, " n"], maximum_sum: int) -> Int[np.ndarray, " n"]:
    """Return `min(sizes, c)` with the largest c for which the sum is at most `maximum_sum`."""
    if sizes.sum() <= maximum_sum:
        return sizes
    order = np.sort(sizes)
    before = np.cumsum(order) - order
    # Value of c if this size and all larger ones exceed it.
    caps = (maximum_sum - before) // np.arange(len(order), 0, -1)
    return np.minimum(sizes, caps[np.argmax(order >= caps)])
