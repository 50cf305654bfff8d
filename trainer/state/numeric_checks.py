"""Faults that would spoil a run in silence: numbers that are not finite, and processes whose weights have drifted apart."""

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

LISTED_SEQUENCES = 3  # sequences in a message; the file has all


@dataclass(frozen=True)
class BatchOrigin:
    """The sequences of one whole global batch, all processes' parts in order."""

    first: int  # global number of the first
    leaves: Int[np.ndarray, " sequences"]
    rows: Int[np.ndarray, " sequences"]  # inside their leaf


def check_finite(
    out: Path,
    team: Team,
    *,
    step: int,
    loss: float,
    norm: float,
    nats: Float[Tensor, " part"],
    drawn: BatchOrigin,
) -> None:
    """Stop the run if its numbers are no longer finite. Called between backward and the optimizer's step: the weights are still sound.

    Writes `out/fault.json` with every sequence at fault, or the whole batch where no single one is: `number`, `leaf`, `row`, `nats`.

    Args:
        step: steps done before this one.
        loss: mean loss of the whole batch; like `norm`, of its gradient, the same on all processes.
        nats: sum of the loss over each sequence of this process's part.

    Raises:
        UserError: the loss or the gradient is not finite; on all processes.
    """
    if math.isfinite(loss) and math.isfinite(norm):
        return
    found = np.array(
        [value for part in team.gather(json.dumps(nats.tolist())) for value in json.loads(part)]
    )
    bad = np.flatnonzero(~np.isfinite(found))
    whole = len(bad) == 0
    places = np.arange(len(found)) if whole else bad
    rows = [
        {"number": drawn.first + place, "leaf": leaf, "row": row, "nats": value}
        for place, leaf, row, value in zip(
            places.tolist(),
            drawn.leaves[places].tolist(),
            drawn.rows[places].tolist(),
            found[places].tolist(),
            strict=True,
        )
    ]
    if team.leads:
        cause = "gradient" if whole and math.isfinite(loss) else "loss"
        write_json(
            out / "fault.json",
            json_ready(
                {
                    "step": step,
                    "cause": cause,
                    "loss": loss,
                    "gradient_norm": norm,
                    "sequences": rows,
                }
            ),
        )
    team.wait()  # the first process that ends takes the others with it
    if whole:
        what = f"{'the gradient' if math.isfinite(loss) else 'the loss of the batch'} is not finite, but the loss of each sequence is"
        which = f"its {len(rows)} sequences are in"
    else:
        shown = ", ".join(
            f"number {row['number']} (leaf {row['leaf']}, row {row['row']})"
            for row in rows[:LISTED_SEQUENCES]
        )
        what = f"the loss is not finite in {len(bad)} of {len(found)} sequences: {shown}"
        which = "all of them are in" if len(bad) > LISTED_SEQUENCES else "also in"
    raise UserError(
        f"step {step}: {what}; {which} {out / 'fault.json'}. The weights were not touched; started again unchanged, the run comes here "
        "again. Lower optimizer.learning_rate (--accept config goes on with it from the last checkpoint), or look at these texts"
    )


def check_replicas(digest: str, team: Team) -> None:
    """See that all processes have the same weights, where each has a whole copy of them.

    Args:
        digest: of this process's weights.

    Raises:
        UserError: they differ; on all processes.
    """
    digests = team.gather(digest)
    usual = Counter(digests).most_common(1)[0][0]
    others = [rank for rank, found in enumerate(digests) if found != usual]
    if others:
        raise UserError(
            f"the weights of {_ranks(others)} differ from those of the other {len(digests) - len(others)}: a fault of a device or of the "
            "communication; start again, the run goes on from its last checkpoint. If it comes again, leave that machine out"
        )


def _ranks(ranks: Sequence[int]) -> str:
    return f"rank{'s' if len(ranks) > 1 else ''} {', '.join(map(str, ranks))}"
