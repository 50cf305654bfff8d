"""Parts: one folder of one stage's output each, with a sidecar that records its inputs.

A part is done if and only if its sidecar is there and has the expected fingerprint.

On a disk a part is a folder that is renamed into place. In an object store it is made on the local
disk of its maker and uploaded. Its files are objects `STAGE/NAME/FINGERPRINT/CHECKSUM/FILE`, so two
makers never write different content to one object, and the sidecar is created last, if there is
none. Later stages get the files from the cache of their machine.

Files of a finished catalog are standing parts: they are used where they are, and have no sidecar.
"""

import fnmatch
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import Field, model_serializer

from data_catalog.disk import writing
from data_catalog.errors import UserError
from data_catalog.format.accounts import Account
from data_catalog.format.file_cache import (
    cache_folder_of,
    cached_file,
    keeping_used_files,
    scratch_folder,
)
from data_catalog.format.layout import FOLDERS
from data_catalog.format.lock import sole_holder
from data_catalog.format.manifest import FileIdentity, describe_files, json_text, write_json
from data_catalog.format.records import WholeRecord, parse_record, read_record
from data_catalog.format.stored_file import StoredFile
from data_catalog.lease import Lease, sole_lease
from data_catalog.place import Folder, Place
from data_catalog.temporary import remove_unfinished, replacing

SIDECAR = "part.json"
_CHECKSUM_DIGITS = 16  # of a file's checksum, in the names of objects
_REMEMBERED_SIDECARS = 4096
_UPLOADS = 4  # files that a maker uploads at the same time


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


class StandingFile(NamedTuple):
    """A file of a finished catalog, where it is."""

    place: Folder
    """Its path on a disk, or its object in a store."""
    identity: FileIdentity


@dataclass(frozen=True)
class Part:
    """A finished part, as later stages receive it."""

    place: Folder
    """The folder, on a disk or in an object store."""
    fingerprint: str
    account: Account
    seconds: float  # time to make the part
    standing: Mapping[str, StandingFile] | None = None
    """The files of a standing part by the names that stages read. `place` need not exist then."""

    @property
    def name(self) -> str:
        return self.place.name

    @property
    def folder(self) -> Path:
        """The folder on this machine. Of a part in a store, all files are downloaded.

        Raises:
            UserError: A file cannot be read, or is damaged.
        """
        if isinstance(self.place, Path):
            return self.place
        for name in self.files():
            self.file(name)
        folder = cache_folder_of(self.place, self.fingerprint)
        folder.mkdir(parents=True, exist_ok=True)  # of a part without files
        return folder

    def source(self, name: str) -> Folder:
        """Return the path of one file, or its object if it is in a store.

        It need not exist on a disk.

        Raises:
            UserError: A store has no such file.
        """
        if self.standing is not None:
            return self.standing[name].place
        if isinstance(self.place, Path):
            return self.place / name
        if (identity := self.files().get(name)) is None:
            raise UserError(
                f"{self.place}: this part has no file {name}. Remove it, and the build makes it "
                "again."
            )
        return _object(self.place, self.fingerprint, name, identity)

    def file(self, name: str) -> Path:
        """Return the path of one file on this machine. Of a file in a store, it is downloaded.

        It need not exist on a disk.

        Raises:
            UserError: A store has no such file, or the file is damaged.
        """
        source = self.source(name)
        if isinstance(source, Path):
            return source
        return cached_file(self._cached(name), source, self.files()[name])

    def readable(self, name: str) -> Path | StoredFile:
        """Return a file to read a small share of: its path, or an open file of the store.

        The latter is read by ranges. What is read is not compared with a checksum.

        Raises:
            UserError: A store has no such file.
        """
        source = self.source(name)
        if isinstance(source, Path) or self._cached(name).is_file():
            return self.file(name)
        return StoredFile(source, self.files()[name].bytes)

    def has(self, name: str) -> bool:
        """Return whether the part has a file of this name."""
        if self.standing is None and isinstance(self.place, Path):
            return (self.place / name).is_file()
        return name in self.files()

    def matching(self, pattern: str) -> list[Path]:
        """Return the paths of the files whose names match a pattern, ascending, as `file` does."""
        return [self.file(name) for name in self.names_like(pattern)]

    def names_like(self, pattern: str) -> list[str]:
        """Return the names of the files that match a pattern, ascending."""
        if self.standing is None and isinstance(self.place, Path):
            return sorted(path.name for path in self.place.glob(pattern))
        return sorted(fnmatch.filter(self.files(), pattern))

    def folder_with(self, name: str) -> Path:
        """Return the folder on this machine. Of a part in a store, only one file is downloaded.

        The part need not have that file.
        """
        if isinstance(self.place, Path):
            return self.place
        if self.has(name):
            self.file(name)
        return cache_folder_of(self.place, self.fingerprint)

    def _cached(self, name: str) -> Path:
        return cache_folder_of(self.place, self.fingerprint) / name

    def files(self) -> dict[str, FileIdentity]:
        """Return size and checksum of every file but the sidecar, by its path below the part.

        Raises:
            UserError: The sidecar is missing or damaged.
        """
        if self.standing is not None:
            return {name: file.identity for name, file in self.standing.items()}
        if isinstance(self.place, Path):
            return part_files(self.place)
        return _stored_record(self.place, self.fingerprint).files or {}


def make_part(folder: Folder, fingerprint: str, make: Callable[[Path], Account]) -> Part:
    """Return the part at `folder`, making it if its sidecar has another fingerprint or is missing.

    `make` writes the part's files into a temporary folder, which is then renamed, and returns the
    account, which must add up. A process killed at any point leaves either the finished part or
    nothing that counts. If several processes make one part, the first that is ready publishes it.
    The sidecar records the checksum of each file, so that later steps need not compute it.

    Args:
        folder: The part's folder, on a disk or in an object store.
        fingerprint: Digest of the part's inputs.
        make: Makes the files.

    Raises:
        AccountingError: The account does not add up.
        UserError: The store cannot be read or written.
    """

    if isinstance(folder, Place):
        return _stored_part(folder, fingerprint) or _make_in_store(folder, fingerprint, make)

    def finished() -> Part | None:
        found = read_part(folder)
        return found if found is not None and found.fingerprint == fingerprint else None

    if done := finished():
        return done
    started = time.perf_counter()
    with replacing(folder, keep=lambda: finished() is not None) as temporary:
        temporary.mkdir()
        account = make(temporary).check(f"{folder.parent.name}/{folder.name}")
        files = _describe(temporary)
        seconds = time.perf_counter() - started
        record = PartRecord(fingerprint=fingerprint, account=account, seconds=seconds, files=files)
        write_json(temporary / SIDECAR, record)
    return Part(folder, fingerprint, account, seconds)


@contextmanager
def sole_builder(work: Folder) -> Iterator[Lease | None]:
    """Hold a work folder for one build and remove what killed builds left in the catalog.

    Finished parts are not touched, nor are temporaries of workers that may be alive, see
    `data_catalog.temporary`. In a store, nothing is removed.

    Yields:
        The lease of a folder in a store, which must still be held when the catalog is published.

    Raises:
        UserError: Another build is running in the folder, or a symbolic link in the catalog leads
            outside it.
        OSError: The disk is full or cannot be written. The error names a path.
    """
    remedy = "Wait for it to end, or set another `out`."
    if isinstance(work, Place):
        with sole_lease(work, "another build", remedy) as lease:
            yield lease
        return
    refusal = f"{work.parent}: another build is running here. {remedy}"
    with writing(work.parent), sole_holder(work.parent, refusal, f"{work.name}/.lock"):
        for stages in (work, *work.glob("add-*")):
            remove_unfinished((*stages.glob("*/"), *stages.glob("*/.*.unfinished/")))
        for folder in FOLDERS:
            remove_unfinished(work.parent.glob(f"{folder}/**/"))
        yield None


def read_part(folder: Path) -> Part | None:
    """Return the finished part in a folder of this machine, or None if it has no sidecar.

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
    return _describe(folder) if files is None else files


def _read_sidecar(folder: Path) -> PartRecord:
    remedy = f"Remove {folder}, and the build makes this part again."
    return read_record(PartRecord, folder / SIDECAR, remedy)


def _describe(folder: Path) -> dict[str, FileIdentity]:
    """Return size and checksum of each file below `folder` but the sidecar."""
    paths = [path for path in folder.rglob("*") if path.is_file() and path != folder / SIDECAR]
    return dict(sorted(describe_files(folder, paths).items()))


def _make_in_store(folder: Place, fingerprint: str, make: Callable[[Path], Account]) -> Part:
    """Make a part on the local disk and upload it, the sidecar last."""
    started = time.perf_counter()
    with keeping_used_files(), scratch_folder(folder.name) as temporary:
        account = make(temporary).check(f"{folder.parent.name}/{folder.name}")
        files = _describe(temporary)
        seconds = time.perf_counter() - started
        part = Part(folder, fingerprint, account, seconds)
        with ThreadPoolExecutor(_UPLOADS) as pool:
            for uploaded in [
                pool.submit(_object(folder, fingerprint, name, file).upload, temporary / name)
                for name, file in files.items()
            ]:
                uploaded.result()
    record = PartRecord(fingerprint=fingerprint, account=account, seconds=seconds, files=files)
    if (folder / fingerprint / SIDECAR).create(json_text(record)):
        return part
    return _stored_part(folder, fingerprint) or part  # of another maker, which was first


def _object(folder: Place, fingerprint: str, name: str, identity: FileIdentity) -> Place:
    """Return the object of a file of a part in a store."""
    return folder / fingerprint / identity.sha256[:_CHECKSUM_DIGITS] / name


def _stored_part(folder: Place, fingerprint: str) -> Part | None:
    """Return the finished part in a folder of a store, or None if it has no sidecar."""
    if (record := _read_stored(folder, fingerprint)) is None:
        return None
    return Part(folder, record.fingerprint, record.account, record.seconds)


@lru_cache(_REMEMBERED_SIDECARS)
def _stored_record(folder: Place, fingerprint: str) -> PartRecord:
    """Return the sidecar of a finished part in a store. It is read once per process."""
    if (record := _read_stored(folder, fingerprint)) is None:
        raise UserError(f"{folder}: this part is gone. Run the build again.")
    return record


def _read_stored(folder: Place, fingerprint: str) -> PartRecord | None:
    sidecar = folder / fingerprint / SIDECAR
    if (text := sidecar.read()) is None:
        return None
    remedy = "Remove it, and the build makes this part again."
    return parse_record(PartRecord, text, str(sidecar), remedy)
