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

MINIMUM_DOMAIN_SEQUENCES = 8  # of a domain: the standard error of fewer says little


@dataclass(frozen=True)
class EvaluationSet:
    """The sequences of one held-out set."""

    name: str  # target/validation, target/test, general, NAME/test, domain/7
    pool: Pool
    leaves: Int[np.ndarray, " n"]
    rows: Int[np.ndarray, " n"]


@dataclass(frozen=True)
class HeldOutLoss:
    """Loss on one held-out set."""

    set: str
    loss: float  # nats: per token; or per question, of a set of questions
    error: float  # standard error of the loss over the sequences or questions, as a sample of more of their kind; NaN of a single one
    sequences: int  # or questions
    bits_per_byte: float | None = (
        None  # of the text as UTF-8; None for questions, and where a set holds no text
    )
    accuracy: float | None = None  # of questions: how often the right choice is the likeliest
    accuracy_error: float | None = None
    accuracy_normalised: float | None = (
        None  # the same with each choice's log-likelihood divided by its bytes
    )

    def record(self) -> dict[str, str | float | int]:
        """Return the values for metrics.jsonl."""
        return {name: value for name, value in vars(self).items() if value is not None}


def evaluation_set(name: str, pool: Pool, most: int, seed: int) -> EvaluationSet:
    """Up to `most` sequences of `pool`, chosen uniformly: for the corpus this is the natural mixture. The name does not matter."""
    leaves, rows = pool.in_order(seed, "evaluate", 0, min(most, pool.total))
    return EvaluationSet(name, pool, leaves, rows)


def domain_sets(pool: Pool, levels: Levels, most: int, seed: int) -> list[EvaluationSet]:
    """A set for every top-level domain: `most` sequences all together, the same number of each domain, chosen uniformly inside it.

    What a small domain leaves over goes to the others. A domain of fewer than LEAST_SEQUENCES has no set; every other has at least so
    many, so that with more than `most / LEAST_SEQUENCES` domains there are more sequences than `most`. Zero: no set at all.
    """
    if not most:
        return []
    top = levels.granularities[0]
    sizes = pool.sequences.reshape(top, -1).sum(1)
    begins = np.cumsum(sizes) - sizes
    counts = np.maximum(_evenly(sizes, most), np.minimum(sizes, MINIMUM_DOMAIN_SEQUENCES))
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
    batch, owners = _read(
        sets, owners, process_slice(len(owners), engine.team.rank, engine.team.world)
    )
    nats = engine.losses(batch).double().cpu()
    kept = batch.labels != IGNORED
    tokens = kept.sum(1).double()
    lengths = torch.from_numpy(byte_lengths)[batch.labels.clamp(min=0)].mul_(kept).sum(1).double()
    columns = torch.cat([lengths[:, None], moments(nats, tokens)], 1)
    sums = torch.zeros(len(sets), columns.shape[1], dtype=torch.float64).index_add_(
        0, torch.from_numpy(owners), columns
    )
    found = []
    for chosen, (text, *of_set) in zip(
        sets, engine.team.sum(sums.to(engine.team.device)).tolist(), strict=True
    ):
        loss, error = ratio_and_error(*of_set)
        bits = of_set[1] / math.log(2) / text if text else None
        found.append(HeldOutLoss(chosen.name, loss, error, len(chosen.leaves), bits))
    return found


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
    population (Cochran 1977, section 6.3); NaN for a single pair. With sizes of one these are the
    mean and its ordinary standard error.
    """
    ratio = values / sizes
    squares = max(
        values_values - 2 * ratio * values_sizes + ratio * ratio * sizes_sizes, 0.0
    )  # rounding may take it below zero
    return ratio, math.sqrt(count / (count - 1) * squares) / sizes if count > 1 else math.nan


def _read(
    sets: Sequence[EvaluationSet], owners: Int[np.ndarray, " n"], mine: slice
) -> tuple[Batch, Int[np.ndarray, " m"]]:
    """Return this process's sequences of all sets, and the set of each."""
    first = 0
    batches = []
    for chosen in sets:
        start, stop = (
            min(max(edge - first, 0), len(chosen.leaves)) for edge in (mine.start, mine.stop)
        )
        batches.append(chosen.pool.read(chosen.leaves, chosen.rows, slice(start, stop)))
        first += len(chosen.leaves)
    whole = Batch(
        torch.cat([batch.inputs for batch in batches]),
        torch.cat([batch.labels for batch in batches]),
        sum(batch.total for batch in batches),
    )
    return whole, owners[mine]


def _evenly(sizes: Int[np.ndarray, " n"], most: int) -> Int[np.ndarray, " n"]:
    """Return `min(sizes, c)` with the largest c for which this sums to `most` or less."""
    if sizes.sum() <= most:
        return sizes
    order = np.sort(sizes)
    before = np.cumsum(order) - order
    caps = (most - before) // np.arange(
        len(order), 0, -1
    )  # if this one and all larger ones are cut
    return np.minimum(sizes, caps[np.argmax(order >= caps)])
