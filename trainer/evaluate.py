"""Held-out losses, on the same sequences each time."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int
from torch import nn

from trainer.config import Training
from trainer.data import Pool
from trainer.distributed import Team
from trainer.model import loss_sum


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


@torch.no_grad()
def mean_loss(model: nn.Module, chosen: EvaluationSet, training: Training, team: Team) -> float:
    """Nats per token over all tokens of the set; each process takes its share of the sequences."""
    count = len(chosen.leaves)
    mine = slice(team.rank * count // team.world, (team.rank + 1) * count // team.world)
    batch = chosen.pool.read(chosen.leaves, chosen.rows, mine).to(team.device)
    total = torch.zeros((), dtype=torch.float64, device=team.device)
    micro = training.micro_batch_sequences
    for inputs, labels in zip(torch.split(batch.inputs, micro), torch.split(batch.labels, micro), strict=True):
        if len(inputs):
            total += loss_sum(model, inputs, labels, training.precision).double()
    return float(team.sum(total)) / batch.total
