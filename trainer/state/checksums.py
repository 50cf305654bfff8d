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
from trainer.distributed import Team

STATE = "state.json"
CHECKSUMS_KEY = "checksums"  # of state.json: true if the checkpoint was written with checksums
DAMAGED_SUFFIX = ".damaged"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Choice:
    """The checkpoint that a run resumes from, and the newer ones that are damaged."""

    folder: Path | None
    """None: there is no checkpoint."""
    damaged: tuple[Path, ...] = ()


def checkpoints(out: Path) -> list[Path]:
    """Return the folders of a run's checkpoints, oldest first. They may be damaged."""
    folders = (out / "checkpoints").glob("[0-9]*")
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
    faults: dict[Path, str] = {}
    for name in reversed(json.loads(names)):
        folder = out / "checkpoints" / name
        fault = find_fault(folder, read) if team.leads_machine else ""
        fault = next(filter(None, team.gather(fault)), "")
        if not fault:
            _warn(folder, faults, team)
            return Choice(folder, tuple(faults))
        faults[folder] = fault
    if faults:
        raise UserError(
            f"{out}: no checkpoint can be resumed from, because all are damaged: "
            f"{_listed(faults)}. Restore their files from a copy, or remove {out / 'checkpoints'} "
            "to start the run again from its first step."
        )
    return Choice(None)


def _warn(chosen: Path, faults: dict[Path, str], team: Team) -> None:
    if not team.is_leader:
        return
    if faults:
        logger.warning(
            "%s: damaged: %s. Resuming from the checkpoint of step %d.",
            chosen.parent,
            _listed(faults),
            int(chosen.name),
        )
    if not (chosen / CHECKSUMS).exists():
        logger.warning(
            "%s: this checkpoint was written without checksums by an earlier version of "
            "clustermix. It is not verified.",
            chosen,
        )


def _listed(faults: dict[Path, str]) -> str:
    return ", ".join(f"step {int(folder.name)} ({fault})" for folder, fault in faults.items())


def set_aside(damaged: Sequence[Path]) -> None:
    """Rename damaged checkpoints, so that they neither count as checkpoints nor are lost."""
    for folder in damaged:
        place, number = folder.with_name(folder.name + DAMAGED_SUFFIX), 1
        while place.exists():
            number += 1
            place = folder.with_name(f"{folder.name}{DAMAGED_SUFFIX}-{number}")
        folder.rename(place)
