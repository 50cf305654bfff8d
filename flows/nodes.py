"""The machines of a training, on each of which the same command is started.

They meet by torch's elastic launcher. This module imports neither torch nor Prefect.
"""

import os
from typing import Annotated

from pydantic import Field

from data_catalog.settings import Settings

# Number of times that all processes start again from the last checkpoint after one has failed, for
# example because its machine is gone. torch's own variable changes it.
_RESTARTS_VARIABLE, _RESTARTS = "PET_MAX_RESTARTS", "10"


class Nodes(Settings):
    """The machines of a run."""

    count: Annotated[str, Field(pattern=r"^[1-9][0-9]*(:[1-9][0-9]*)?$")]
    """Number of machines, or MINIMUM:MAXIMUM."""
    rdzv: Annotated[str, Field(pattern=r"^.+:[0-9]+$")]
    """HOST:PORT where the machines meet. HOST is one of them."""
    rdzv_id: str = "clustermix"
    """Name of the run at this place."""


def launcher_options(nodes: Nodes | None) -> list[str]:
    """Return the options of `torch.distributed.run` for `nodes`, or for this machine alone."""
    if nodes is None:
        return ["--standalone"]
    restarts = os.environ.get(_RESTARTS_VARIABLE, _RESTARTS)
    return [
        *(f"--nnodes={nodes.count}", f"--max-restarts={restarts}"),
        *("--rdzv-backend=c10d", f"--rdzv-endpoint={nodes.rdzv}", f"--rdzv-id={nodes.rdzv_id}"),
    ]
