"""A limit on the loss on general text, which a dual variable keeps.

The limit is the loss of another run, such as one on the natural mixture, plus a margin. The dual
variable is an additional weight of `general` among the targets (`mixture.targets`). It grows while
the loss is above the limit and shrinks while it is below, but not below zero. It moves the prior
toward `natural`, and the target's gradient toward that of the corpus.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from data_catalog.errors import UserError
from data_catalog.format.damage import reading
from data_catalog.format.run_files import require_run_files
from trainer.mixture_config import GENERAL

METRICS = "metrics.jsonl"
# Growth of the dual variable in a whole run whose loss is 1 nat per token above the limit.
DUAL_STEP = 100.0
_WEIGHT = "general_weight"  # name of the dual variable in a mixer's memory


@dataclass(frozen=True)
class Guardrail:
    """The limit on the loss on general text."""

    tokens: Float[np.ndarray, " evaluations"]
    """Tokens trained on at the evaluations of the reference run, in increasing order."""
    losses: Float[np.ndarray, " evaluations"]
    """Loss of the reference run on general text, in nats per token."""
    margin: float
    """Maximum excess over these losses, in nats per token."""
    step: float
    """Growth of the dual variable per nat of excess and update."""

    def limit(self, tokens: int) -> float:
        """Return the maximum loss after a number of tokens.

        It is interpolated over the logarithm of tokens. Beyond the reference's end it is constant.
        """
        known = np.interp(np.log1p(tokens), np.log1p(self.tokens), self.losses)
        return float(known) + self.margin

    def weight(self, memory: Mapping[str, Float[np.ndarray, "..."]]) -> float:
        """Return the dual variable, which is part of a mixer's memory."""
        return float(memory.get(_WEIGHT, np.zeros(1))[0])

    def shares(
        self, shares: Mapping[str, float], memory: Mapping[str, Float[np.ndarray, "..."]]
    ) -> dict[str, float]:
        """Return the shares of the targets with the dual variable added to that of `general`.

        Args:
            shares: shares of the targets by name, which sum to 1. `general` is among them.
            memory: the mixer's memory.
        """
        weight = self.weight(memory)
        return {
            name: (share + weight if name == GENERAL else share) / (1.0 + weight)
            for name, share in shares.items()
        }

    def updated(
        self, memory: Mapping[str, Float[np.ndarray, "..."]], loss: float, tokens: int
    ) -> dict[str, Float[np.ndarray, "..."]]:
        """Return the memory after an update: a step of projected dual ascent.

        Args:
            memory: the mixer's memory.
            loss: loss on general text, in nats per token.
            tokens: number of tokens trained on.
        """
        raised = self.weight(memory) + self.step * (loss - self.limit(tokens))
        return {**memory, _WEIGHT: np.array([max(0.0, raised)])}

    def record(
        self, memory: Mapping[str, Float[np.ndarray, "..."]], loss: float, tokens: int
    ) -> dict[str, float]:
        """Return the values of an update for metrics.jsonl. For the arguments see `updated`."""
        return {
            "general_loss": loss,
            "general_limit": self.limit(tokens),
            "general_weight": self.weight(memory),
        }


def parse_limit(text: str) -> tuple[Path, float]:
    """Return run and margin of a limit such as `runs/natural + 0.05`."""
    run, _, margin = text.rpartition("+")
    return Path(run.strip()), float(margin)


def read_guardrail(text: str, updates: int) -> Guardrail:
    """Return the limit that `mixture.general_loss_at_most` names.

    Args:
        text: folder of the reference run, and the margin.
        updates: number of updates of the run that is limited.

    Raises:
        UserError: The reference run was not evaluated on general text.
        DamagedFileError: Its metrics are missing or damaged.
    """
    run, margin = parse_limit(text)
    if not (run / METRICS).is_file():
        raise UserError(
            f"mixture.general_loss_at_most: {run} is not the folder of a run. Train it first, or "
            "correct the path."
        )
    require_run_files(run, [METRICS])
    with reading(run / METRICS):
        lines = (run / METRICS).read_text(encoding="utf-8").splitlines()
        records = [json.loads(line) for line in lines]
        found = {
            int(record["tokens"]): float(record["loss"])
            for record in records
            if record["kind"] == "eval" and record["set"] == GENERAL
        }
    if len(found) < 2:
        raise UserError(
            f"mixture.general_loss_at_most: {run} has {len(found)} evaluations on general text. "
            "Expected at least 2. Train it with evaluation.every_steps."
        )
    tokens = np.array(sorted(found), np.float64)
    losses = np.array([found[int(number)] for number in tokens])
    return Guardrail(tokens, losses, margin, DUAL_STEP / max(updates, 1))
