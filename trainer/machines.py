"""Checks that the machines of a run have the same code, config, catalog and run folder."""

import json
import platform
import socket
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import TypeVar

from data_catalog import __version__
from data_catalog.errors import UserError
from data_catalog.temporary import temporary_path
from trainer.config import Train
from trainer.distributed import Team
from trainer.inputs import catalog_of

Result = TypeVar("Result")

# Time until a new file is seen on the other machines. NFS remembers that a file did not exist.
VISIBLE_SECONDS = 60.0


def on_all(team: Team, work: Callable[[], Result]) -> Result:
    """Return `work()`. All processes call this together.

    Raises:
        UserError: `work` raised it on a process. All processes raise it. If it is not the same on
            all, it names the machine.
    """
    if team.world == 1:
        return work()
    result, fault = None, None
    try:
        result = work()
    except UserError as error:
        fault = error
    told = [json.loads(text) for text in team.gather(json.dumps([_host(), str(fault or "")]))]
    if not any(sentence for _, sentence in told):
        return result  # type: ignore[return-value]
    if fault is not None and all(sentence == str(fault) for _, sentence in told):
        raise fault
    host, sentence = next((host, sentence) for host, sentence in told if sentence)
    raise UserError(f"{host}: {sentence}")


def check_machines(config: Train, team: Team) -> None:
    """Check that all processes have the same versions, config and catalog.

    Raises:
        UserError: They differ, or a machine has no catalog. All processes raise it.
    """
    if team.world == 1:
        return
    catalog = on_all(team, lambda: catalog_of(config).manifest)
    hybrid = config.training.parallel == "hsdp" and not config.training.shard_processes
    own = {
        "versions": _versions(),
        "config": config.fingerprint(),
        "catalog": catalog.fingerprint,
        "processes": team.local_world if hybrid else None,
    }
    told = [json.loads(text) for text in team.gather(json.dumps([_host(), own]))]
    first_host, first = told[0]
    for host, other in told[1:]:
        for what, remedy in (
            ("versions", "Install the same versions on all machines, from constraints.txt."),
            ("config", "Start all machines with the same config and options."),
            ("catalog", "All machines need the same catalog."),
            ("processes", "Set training.shard_processes."),
        ):
            if other[what] != first[what]:
                found = f"found {other[what]}, but {first_host} has {first[what]}"
                raise UserError(f"{host}: {what} of the run: {found}. {remedy}")


def check_run_folder(out: Path, team: Team) -> None:
    """Check that all machines see the run folder of the first process, which exists.

    Raises:
        UserError: A machine does not see it. All processes raise it.
    """
    if team.world == team.local_world:
        return
    sign = temporary_path(out / "machines")
    if team.is_leader:
        sign.touch()
    try:
        [name, *_] = team.gather(sign.name)
        on_all(team, lambda: _require(out / name, team))
    finally:
        if team.is_leader:
            sign.unlink(missing_ok=True)


def _require(sign: Path, team: Team) -> None:
    until = time.monotonic() + VISIBLE_SECONDS
    while team.leads_machine and not sign.exists():
        if time.monotonic() > until:
            raise UserError(
                f"out {sign.parent}: This folder is not that of the first process. All machines "
                "need the same folder. Use a shared file system."
            )
        time.sleep(0.5)


def _versions() -> str:
    names = ("torch", "transformers", "numpy")
    found = {"clustermix": __version__, "python": platform.python_version()}
    return ", ".join(
        f"{name} {version}"
        for name, version in (found | {name: metadata.version(name) for name in names}).items()
    )


def _host() -> str:
    return socket.gethostname()
