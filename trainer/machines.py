"""Checks that the machines of a run have the same code, config, catalog and run folder."""

import json
import platform
import socket
import time
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager, suppress
from importlib import metadata
from pathlib import Path

from data_catalog import __version__
from data_catalog.errors import UserError
from data_catalog.format.lock import LOCK, sole_holder
from data_catalog.format.run_files import MODELS
from data_catalog.lease import sole_lease
from data_catalog.place import Place
from data_catalog.temporary import remove, temporary_path
from trainer.config import Train
from trainer.distributed import Team, on_all
from trainer.inputs import catalog_of
from trainer.state.checksums import CHECKPOINTS
from trainer.state.stored_run import FAULT, METRICS, StoredRun

# Time until a new file is seen on the other machines. NFS remembers that a file did not exist.
VISIBLE_SECONDS = 60.0


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
        "out": None if isinstance(config.out, Path) else str(config.out),
    }
    told = [json.loads(text) for text in team.gather(json.dumps([socket.gethostname(), own]))]
    first_host, first = told[0]
    for host, other in told[1:]:
        for what, remedy in (
            ("versions", "Install the same versions on all machines, from constraints.txt."),
            ("config", "Start all machines with the same config and options."),
            ("catalog", "All machines need the same catalog."),
            ("processes", "Set training.shard_processes."),
            ("out", "All machines need the same URL."),
        ):
            if other[what] != first[what]:
                found = f"found {other[what]}, but {first_host} has {first[what]}"
                raise UserError(f"{host}: {what} of the run: {found}. {remedy}")


@contextmanager
def hold_run(config: Train, team: Team) -> Iterator[StoredRun | None]:
    """Hold the folder of a run, so that no other process trains there. All processes call this.

    Yields:
        The run, if `config.out` is in a store.

    Raises:
        UserError: Another process trains there, or a machine does not see the folder.
    """
    out = config.out
    with ExitStack() as stack:
        if isinstance(out, Path):
            if team.is_leader:
                refusal = "Another process is training in this folder. Wait for it, or change out."
                stack.enter_context(sole_holder(out, f"{out}: {refusal}"))
            check_run_folder(out, team)
            yield None
        else:
            opened = _open_stored(out, config.folder, team)
            yield on_all(team, lambda: stack.enter_context(opened))


@contextmanager
def _open_stored(place: Place, folder: Path, team: Team) -> Iterator[StoredRun]:
    """Hold a run in a store, and prepare this machine's folder.

    Waits for up to a minute for the end of a lease whose holder was killed.

    Raises:
        UserError: Another process trains in this place.
    """
    with ExitStack() as stack:
        lease = None
        if team.leads_machine:
            refusal = (
                f"{place}: Another process of this machine is training in {folder}. Wait for it, "
                "or set XDG_CACHE_HOME to another folder."
            )
            stack.enter_context(sole_holder(folder, refusal))
        if team.is_leader:
            remedy = "Wait for it, or change out."
            lease = stack.enter_context(sole_lease(place, "another training", remedy, wait=True))
        if team.leads_machine:
            _clear(folder, {CHECKPOINTS})
        run = StoredRun(place, folder, lease)
        try:
            yield run
        finally:
            if lease is not None and (folder / FAULT).exists():
                with suppress(UserError):  # the run is failing already
                    (place / FAULT).upload(folder / FAULT)
            if team.leads_machine and (folder / MODELS[-1]).exists():  # the run is finished
                _clear(folder, {METRICS})  # which the command still shows


def _clear(folder: Path, kept: Collection[str]) -> None:
    for path in folder.iterdir():
        if path.name not in kept and path.name != LOCK:
            remove(path)


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
