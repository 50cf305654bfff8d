"""The machines of a training, on each of which the same command is started.

They meet by torch's elastic launcher. This module imports neither torch nor Prefect.
"""

import os
import socket
from typing import Annotated

from pydantic import Field

from data_catalog.errors import UserError
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
    """Return the options of `torch.distributed.run` for `nodes`, or for this machine alone.

    Raises:
        UserError: The host of `nodes.rdzv` has no address here.
    """
    if nodes is None:
        return ["--standalone"]
    restarts = os.environ.get(_RESTARTS_VARIABLE, _RESTARTS)
    return [
        *(f"--nnodes={nodes.count}", f"--max-restarts={restarts}"),
        *("--rdzv-backend=c10d", f"--rdzv-endpoint={nodes.rdzv}", f"--rdzv-id={nodes.rdzv_id}"),
        *_address_options(nodes.rdzv),
    ]


def _address_options(rdzv: str) -> list[str]:
    """Return whether the machines meet here, and the address that the others reach this one by.

    torch looks both up by this machine's name, which need not have an address.
    """
    host, _, port = rdzv.rpartition(":")
    try:
        family, kind, _, _, place = socket.getaddrinfo(
            host.strip("[]"), int(port), type=socket.SOCK_DGRAM
        )[0]
        with socket.socket(family, kind) as probe:
            probe.connect(place)  # sends nothing
            own = str(probe.getsockname()[0])
    except OSError as error:
        raise UserError(
            f"--rdzv {rdzv}: this machine finds no way to {host} ({error.strerror or error}). "
            "Name it by an address that every machine reaches."
        ) from error
    is_host = own == place[0]
    options = [f"--rdzv-conf=is_host={str(is_host).lower()}"]
    if "PET_LOCAL_ADDR" in os.environ or own.startswith("127.") or own == "::1":
        return options  # a loopback address means nothing to others
    return [*options, f"--local-addr={own}"]
