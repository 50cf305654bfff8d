"""Held-out losses, on the same sequences each time."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from trainer.data import Pool
from trainer.engine import Engine


@dataclass(frozen=True)
class EvaluationSet:
    name: str  # target/validation, target/test, general
    pool: Pool
    leaves: Int[np.ndarray, " n"]
    rows: Int[np.ndarray, " n"]


def evaluation_set(name: str, pool: Pool, most: int, seed: int) -> EvaluationSet:
    """Up to `most` sequences of `pool`, chosen uniformly: for the corpus this is the natural mixture. The name does not matter."""
    leaves, rows = pool.in_order(seed, "evaluate", 0, min(most, pool.total))
    return EvaluationSet(name, pool, leaves, rows)


def mean_loss(engine: Engine, chosen: EvaluationSet) -> float:
    """Nats per token over all tokens of the set; each process takes its share of the sequences."""
    count, team = len(chosen.leaves), engine.team
    mine = slice(team.rank * count // team.world, (team.rank + 1) * count // team.world)
    batch = chosen.pool.read(chosen.leaves, chosen.rows, mine)
    return float(team.sum(engine.losses(batch).double().sum())) / batch.total
