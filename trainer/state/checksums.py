"""Checksums of a checkpoint's files, and the choice of the newest checkpoint that is sound.

`checksums.json` is written last into the folder of a checkpoint. Checkpoints of earlier versions of
clustermix have none.
"""

import json
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from data_catalog.errors import UserError
from data_catalog.format.damage import DamagedFileError, first_line, unreadable
from data_catalog.format.manifest import damaged_files
from data_catalog.format.records import read_record
from data_catalog.format.run_files import CHECKSUMS, Checksums
from data_catalog.place import Folder
from trainer.distributed import Team, on_all

CHECKPOINTS = "checkpoints"  # the folder of a run
STATE = "state.json"
CHECKSUMS_KEY = "checksums"  # of state.json: true if the checkpoint was written with checksums
DAMAGED_SUFFIX = ".damaged"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Choice:
    """The checkpoint that a run resumes from, and the newer ones that are damaged."""

    folder: Path | None
    """None: there is no checkpoint."""
    damaged: tuple[str, ...] = ()


def checkpoints(out: Path) -> list[Path]:
    """Return the folders of a run's checkpoints, oldest first. They may be damaged."""
    folders = (out / CHECKPOINTS).glob("[0-9]*")
    return sorted(path for path in folders if path.name.isdecimal() and path.is_dir())


def find_fault(folder: Path, read: Callable[[Path], object]) -> str:
    """Return what is wrong with a checkpoint: a file and its fault, or an empty text.

    Args:
        folder: the checkpoint's folder.
        read: reads all files of a checkpoint. A checkpoint of an earlier version has no checksums,
            and is sound if this raises no `DamagedFileError`.
    """
    path = folder / CHECKSUMS
    if not os.path.lexists(path):
        try:
            read(folder)
        except DamagedFileError as error:
            return f"{error.path.name}: {error.reason}"
        return _state_fault(folder, with_checksums=False)
    try:
        files = read_record(Checksums, path, "").files
    except UserError:
        return f"{CHECKSUMS}: cannot be read"
    if STATE not in files:
        return f"{CHECKSUMS}: {STATE} is not listed"
    faults = damaged_files(folder, files)
    if faults:
        name, fault = next(iter(faults.items()))
        return f"{name}: {fault}"
    return _state_fault(folder, with_checksums=True)


def _state_fault(folder: Path, with_checksums: bool) -> str:
    path = folder / STATE
    if reason := unreadable(path):
        return f"{STATE}: {reason}"
    try:
        about = json.loads(path.read_bytes())
        step, written = int(about["step"]), bool(about.get(CHECKSUMS_KEY, False))
    except Exception as error:
        return f"{STATE}: {first_line(error)}"
    if step != int(folder.name):
        return f"{STATE}: is of step {step}"
    return "" if written == with_checksums else f"{CHECKSUMS}: the file is missing"


def choose_checkpoint(out: Path, team: Team, read: Callable[[Path], object]) -> Choice:
    """Return the newest sound checkpoint of a run. All processes call this and agree.

    One process per machine reads all files of the checkpoint. For `read`, see `find_fault`.

    Raises:
        UserError: There are checkpoints, and all of them are damaged.
    """
    [names, *_] = team.gather(json.dumps([folder.name for folder in checkpoints(out)]))
    place = out / CHECKPOINTS
    name, damaged = newest_sound(
        place, json.loads(names), lambda name: find_fault(place / name, read), team
    )
    if name and team.is_leader and not (place / name / CHECKSUMS).exists():
        logger.warning(
            "%s: this checkpoint was written without checksums by an earlier version of "
            "clustermix. It is not verified.",
            place / name,
        )
    return Choice(place / name if name else None, damaged)


def newest_sound(
    place: Folder, names: Sequence[str], find: Callable[[str], str], team: Team
) -> tuple[str | None, tuple[str, ...]]:
    """Return the newest sound checkpoint, and the newer ones that are damaged.

    All processes call this and agree.

    Args:
        place: the folder of the checkpoints.
        names: their names, oldest first.
        find: returns what is wrong with a checkpoint, or an empty text. One process per machine
            calls it.
        team: the processes of the run.

    Raises:
        UserError: There are checkpoints, and all of them are damaged. Or `find` raised it.
    """
    faults: dict[str, str] = {}
    for name in reversed(names):
        fault = on_all(team, lambda name=name: find(name) if team.leads_machine else "")  # type: ignore[misc]
        fault = next(filter(None, team.gather(fault)), "")
        if not fault:
            if faults and team.is_leader:
                logger.warning(
                    "%s: damaged: %s. Resuming from the checkpoint of step %d.",
                    place,
                    _listed(faults),
                    step_of(name),
                )
            return name, tuple(faults)
        faults[name] = fault
    if faults:
        raise UserError(
            f"{place.parent}: no checkpoint can be resumed from, because all are damaged: "
            f"{_listed(faults)}. Restore their files from a copy, or remove {place} "
            "to start the run again from its first step."
        )
    return None, ()


def step_of(name: str) -> int:
    """Return the step of a checkpoint by its name, which is a number or begins with one."""
    return int(name.partition("-")[0])


def _listed(faults: dict[str, str]) -> str:
    return ", ".join(f"step {step_of(name)} ({fault})" for name, fault in faults.items())


def set_aside(out: Path, damaged: Sequence[str]) -> None:
    """Rename damaged checkpoints, so that they neither count as checkpoints nor are lost."""
    for name in damaged:
        folder = out / CHECKPOINTS / name
        place, number = folder.with_name(folder.name + DAMAGED_SUFFIX), 1
        while place.exists():
            number += 1
            place = folder.with_name(f"{folder.name}{DAMAGED_SUFFIX}-{number}")
        folder.rename(place)
