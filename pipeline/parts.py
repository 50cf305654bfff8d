"""Parts: one folder of one stage's output each, with a sidecar that records its inputs.

A part is done if and only if its sidecar is there and has the expected fingerprint.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, model_serializer

from data_catalog.disk import writing
from data_catalog.format.accounts import Account
from data_catalog.format.layout import FOLDERS
from data_catalog.format.lock import sole_holder
from data_catalog.format.manifest import FileIdentity, describe_files, write_json
from data_catalog.format.records import WholeRecord, read_record
from data_catalog.temporary import remove_unfinished, replacing

SIDECAR = "part.json"


class PartRecord(WholeRecord):
    """The contents of a part's sidecar."""

    fingerprint: Annotated[str, Field(min_length=1)]
    """Digest of the stage's name, version and config, and of its inputs."""
    account: Account
    seconds: Annotated[float, Field(ge=0)]
    """Time that making the part took."""
    files: dict[str, FileIdentity] | None = None
    """Every file of the part but the sidecar, keyed by its path below the part. Sidecars of earlier
    versions have no such key."""

    @model_serializer(mode="wrap")
    def _without_unknown_files(self, handler: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        content = handler(self)
        if self.files is None:
            content.pop("files", None)
        return content


@dataclass(frozen=True)
class Part:
    """A finished part, as later stages receive it."""

    folder: Path
    fingerprint: str
    account: Account
    seconds: float  # time to make the part

    @property
    def name(self) -> str:
        return self.folder.name


def make_part(
    folder: Path,
    fingerprint: str,
    make: Callable[[Path], Account],
    known_files: Mapping[str, FileIdentity] | None = None,
) -> Part:
    """Return the part at `folder`, making it if its sidecar has another fingerprint or is missing.

    `make` writes the part's files into a temporary folder, which is then renamed, and returns the
    account, which must add up. A process killed at any point leaves either the finished part or
    nothing that counts. If several processes make one part, the first that is ready publishes it.
    The sidecar records the checksum of each file, so that later steps need not compute it.

    Args:
        folder: The part's folder.
        fingerprint: Digest of the part's inputs.
        make: Makes the files.
        known_files: Files of which the checksum is known, such as links, by their path below
            `folder`. The others are read once.

    Raises:
        AccountingError: The account does not add up.
    """

    def finished() -> Part | None:
        found = read_part(folder)
        return found if found is not None and found.fingerprint == fingerprint else None

    if done := finished():
        return done
    started = time.perf_counter()
    with replacing(folder, keep=lambda: finished() is not None) as temporary:
        temporary.mkdir()
        account = make(temporary).check(f"{folder.parent.name}/{folder.name}")
        files = _describe(temporary, known_files or {})
        seconds = time.perf_counter() - started
        record = PartRecord(fingerprint=fingerprint, account=account, seconds=seconds, files=files)
        write_json(temporary / SIDECAR, record)
    return Part(folder, fingerprint, account, seconds)


@contextmanager
def sole_builder(work: Path) -> Iterator[None]:
    """Hold a work folder for one build and remove what killed builds left in the catalog.

    Finished parts are not touched, nor are temporaries of workers that may be alive, see
    `data_catalog.temporary`.

    Raises:
        UserError: Another build is running in the folder, or a symbolic link in the catalog leads
            outside it.
        OSError: The disk is full or cannot be written. The error names a path.
    """
    refusal = (
        f"{work.parent}: another build is running here. Wait for it to end, or set another `out`."
    )
    with writing(work.parent), sole_holder(work.parent, refusal, f"{work.name}/.lock"):
        for stages in (work, *work.glob("add-*")):
            remove_unfinished((*stages.glob("*/"), *stages.glob("*/.*.unfinished/")))
        for folder in FOLDERS:
            remove_unfinished(work.parent.glob(f"{folder}/**/"))
        yield


def read_part(folder: Path) -> Part | None:
    """Return the finished part at `folder`, or None if it has no sidecar.

    Raises:
        UserError: A key of the sidecar is missing, of another type or out of range.
    """
    if not (folder / SIDECAR).is_file():
        return None
    record = _read_sidecar(folder)
    return Part(folder, record.fingerprint, record.account, record.seconds)


def part_files(folder: Path) -> dict[str, FileIdentity]:
    """Return size and checksum of every file of a finished part, by its path below `folder`.

    They come from the sidecar. If an earlier version wrote it, the files are read.

    Raises:
        UserError: See `read_part`.
    """
    files = _read_sidecar(folder).files
    return _describe(folder, {}) if files is None else files


def _read_sidecar(folder: Path) -> PartRecord:
    remedy = f"Remove {folder}, and the build makes this part again."
    return read_record(PartRecord, folder / SIDECAR, remedy)


def _describe(folder: Path, known: Mapping[str, FileIdentity]) -> dict[str, FileIdentity]:
    """Return size and checksum of each file below `folder` but the sidecar."""
    paths = {
        path.relative_to(folder).as_posix(): path
        for path in folder.rglob("*")
        if path.is_file() and path != folder / SIDECAR
    }
    others = [path for name, path in paths.items() if name not in known]
    files = {name: known[name] for name in paths if name in known}
    return dict(sorted({**files, **describe_files(folder, others)}.items()))
