"""The Ray cluster that a build runs on."""

import re
from typing import Annotated

from pydantic import AfterValidator, Field

from data_catalog.settings import Settings

LOCAL = "local"
# Environment variables of Ray's processes. Those of the user take precedence.
RAY_SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",  # it would send the current folder to all workers
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # otherwise Ray warns that this will be the default
}
_ADDRESS = re.compile(r"(ray://)?(?P<host>[^\s/:@]+|\[[0-9A-Fa-f:.]+\]):(?P<port>[0-9]{1,5})")


def _check_address(address: str) -> str:
    if address != LOCAL and not _ADDRESS.fullmatch(address):
        raise ValueError(f"expected ray://HOST:PORT, HOST:PORT or {LOCAL}, found {address!r}")
    return address


class Cluster(Settings):
    """A Ray cluster, running or started for one build."""

    address: Annotated[str, AfterValidator(_check_address)] = LOCAL
    """`ray://HOST:10001` for a Ray Client, which can run anywhere. `HOST:6379` on a machine that
    is part of the cluster. `local` starts a cluster on this machine and stops it at the end."""
    workers: int | None = Field(default=None, ge=1)
    """Number of parallel parts of a `local` cluster. If not given, one per core."""

    def endpoint(self) -> tuple[str, int] | None:
        """Return host and port, or None for a local cluster."""
        named = _ADDRESS.fullmatch(self.address)
        return (named["host"].strip("[]"), int(named["port"])) if named else None
