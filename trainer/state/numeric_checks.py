"""Checks for faults that would silently spoil a run.

Losses and gradients must be finite, and the weights of all processes must agree.
"""

import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor

from data_catalog.errors import UserError
from data_catalog.format.manifest import write_json
from trainer.distributed import Team
from trainer.state.metrics import json_ready

RECENT_STEPS = 128  # that a step is compared with
LEAST_RECENT_STEPS = 64  # with fewer, no step is an outlier
LISTED_SEQUENCES = 3  # maximum number of sequences in a message; the file lists all of them


@dataclass(frozen=True)
class BatchOrigin:
    """Origin of every sequence of a global batch, in order over all processes."""

    first: int
    """Global sequence number of the first sequence."""
    leaves: Int[np.ndarray, " sequences"]
    """Leaf of each sequence."""
    rows: Int[np.ndarray, " sequences"]
    """Row of each sequence inside its leaf."""


def check_finite(
    out: Path,
    team: Team,
    *,
    step: int,
    loss: float,
    norm: float,
    nats: Float[Tensor, " own"],
    origin: BatchOrigin,
) -> None:
    """Stop the run if the loss or the gradient is not finite.

    Call this between the backward pass and the optimizer's step, so that the weights are unchanged.
    Before raising, the leader writes `out/fault.json` with the sequences whose loss is not finite,
    or with the whole batch if there are none: `number`, `leaf`, `row` and `nats` of each.

    Args:
        out: the run's folder.
        team: the processes of the run.
        step: number of steps taken before this one.
        loss: mean loss of the global batch in nats per token, equal on all processes.
        norm: norm of its gradient, equal on all processes.
        nats: sum of the loss over each sequence of this process.
        origin: origin of the global batch.

    Raises:
        UserError: The loss or the gradient is not finite. All processes raise it.
    """
    if math.isfinite(loss) and math.isfinite(norm):
        return
    values = np.array(
        [value for part in team.gather(json.dumps(nats.tolist())) for value in json.loads(part)]
    )
    faulty = np.flatnonzero(~np.isfinite(values))
    lists_all = len(faulty) == 0
    places = np.arange(len(values)) if lists_all else faulty
    rows = [
        {"number": origin.first + place, "leaf": leaf, "row": row, "nats": value}
        for place, leaf, row, value in zip(
            places.tolist(),
            origin.leaves[places].tolist(),
            origin.rows[places].tolist(),
            values[places].tolist(),
            strict=True,
        )
    ]
    file = out / "fault.json"
    if team.is_leader:
        cause = "gradient" if lists_all and math.isfinite(loss) else "loss"
        about = {"step": step, "cause": cause, "loss": loss, "gradient_norm": norm}
        write_json(file, json_ready({**about, "sequences": rows}))
    team.wait()  # The first process that exits ends the others, so the file is written first.
    if lists_all:
        subject = "the gradient" if math.isfinite(loss) else "the loss of the batch"
        fault = f"{subject} is not finite, although the loss of each sequence is"
    else:
        listed = ", ".join(
            f"number {row['number']} (leaf {row['leaf']}, row {row['row']})"
            for row in rows[:LISTED_SEQUENCES]
        )
        fault = f"the loss of {len(faulty)} of {len(values)} sequences is not finite: {listed}"
        fault += ", ..." if len(faulty) > LISTED_SEQUENCES else ""
    raise UserError(
        f"step {step}: {fault}. {file} lists {len(rows)} sequences. "
        "Weights are unchanged. Restarting without a change will fail at the same step. "
        "Inspect these texts, or lower optimizer.learning_rate and resume with --accept config."
    )


def check_replicas(digest: str, team: Team) -> None:
    """Check that all processes have equal weights, where each holds a copy of them.

    Args:
        digest: digest of this process's weights.
        team: the processes of the run.

    Raises:
        UserError: The weights differ. All processes raise it.
    """
    digests = team.gather(digest)
    usual = Counter(digests).most_common(1)[0][0]
    deviating = [rank for rank, other in enumerate(digests) if other != usual]
    if deviating:
        raise UserError(
            f"{_ranks(deviating)}: The weights differ from those of the other "
            f"{len(digests) - len(deviating)} processes. This is a fault of a device or of the "
            "communication. Restart to resume from the last checkpoint. If it happens again, "
            "replace that machine."
        )


def _ranks(ranks: Sequence[int]) -> str:
    return f"rank{'s' if len(ranks) > 1 else ''} {', '.join(map(str, ranks))}"


def outlier(
    recent: Float[np.ndarray, "steps 2"], loss: float, norm: float, deviations: float | None
) -> tuple[bool, Float[np.ndarray, "steps_after 2"]]:
    """Return whether a step is to be skipped, and the values for the next one.

    It is skipped if its loss or its gradient norm is above the mean of the last steps by more than
    `deviations` standard deviations, as in OLMo 2 (OLMo team 2025). The values of a skipped step
    count too. Otherwise a lasting change would end the training.

    Args:
        recent: loss and gradient norm of the last steps.
        loss: the step's loss.
        norm: the step's gradient norm.
        deviations: the limit. None: no step is skipped.
    """
    if deviations is None:
        return False, recent
    now = np.array([loss, norm])
    after = np.concatenate([recent[-(RECENT_STEPS - 1) :], now[None]])
    if len(recent) < LEAST_RECENT_STEPS:
        return False, after
    excess = now - recent.mean(axis=0)
    return bool((excess > deviations * recent.std(axis=0)).any()), after
