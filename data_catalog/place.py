"""Places: paths of this machine and fsspec URLs, used alike.

Stores fail for seconds: they ask to slow down, answer late, or cut a transfer. Every operation is
repeated with growing waits, and a transfer of another length than expected counts as failed. What
fails all the same is a `UserError`. Credentials come from fsspec's configuration and from the
environment.
"""

from __future__ import annotations

import errno
import logging
import os
import random
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from data_catalog.disk import describe_disk_failure
from data_catalog.errors import UserError, first_line
from data_catalog.folders import as_url, is_url
from data_catalog.temporary import replacing, temporary_path
from data_catalog.transient import CutError, is_transient

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

# Object stores have no folders. Creating one would create a bucket.
_BUCKET_PROTOCOLS = {"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "oss", "memory"}
_WAITS = tuple(min(0.1 * 2**i, 10) for i in range(9))  # seconds before each further attempt

logger = logging.getLogger(__name__)
Result = TypeVar("Result")


@dataclass(frozen=True)
class Place:
    """A file or a folder, by its path on this machine or by its fsspec URL.

    A place can be sent to other processes. Every operation raises a `UserError` if the store
    refuses it, or fails for longer than half a minute.
    """

    url: str

    def __post_init__(self) -> None:
        scheme, separator, path = self.url.partition("://")
        if separator and scheme in {"file", "local"}:
            object.__setattr__(self, "url", path)
        plain = str(Path(self.url)) if self.is_local else self.url.rstrip("/")
        if self.is_local and is_url(plain):  # `./s3:/x` is a path
            plain = os.path.abspath(plain)
        object.__setattr__(self, "url", plain)

    def __truediv__(self, name: str | Path) -> Place:
        return Place(f"{self.url}/{name}")

    def __str__(self) -> str:
        return self.url

    @property
    def is_local(self) -> bool:
        """True if this is a path on this machine."""
        return not is_url(self.url)

    @property
    def path(self) -> Path | None:
        """The path on this machine, or None for a URL."""
        return Path(self.url) if self.is_local else None

    @property
    def name(self) -> str:
        """The last component."""
        return self.url.rpartition("/")[2]

    @property
    def parent(self) -> Place:
        return Place(self.url.rpartition("/")[0] or "/") if "/" in self.url else Place(".")

    def check(self) -> Place:
        """Check that the URL's file system is known and installed, and return this place.

        Raises:
            UserError: It is not.
        """
        self._system()
        return self

    def size(self) -> int | None:
        """Return the size of a file in bytes, or None if there is no such file."""

        def ask(system: AbstractFileSystem, path: str) -> int | None:
            system.invalidate_cache()
            about = system.info(path)
            return int(about["size"]) if about["type"] == "file" else None

        with suppress(FileNotFoundError):
            return self._repeat(ask)
        return None

    def exists(self) -> bool:
        """Return whether there is a file of this name."""
        return self.size() is not None

    def sizes(self) -> dict[str, int]:
        """Return the size in bytes of every file below this folder, by its relative path."""

        def find(system: AbstractFileSystem, path: str) -> dict[str, int]:
            system.invalidate_cache()
            files = system.find(path, detail=True)
            return {
                name.removeprefix(f"{path}/"): int(about["size"])
                for name, about in files.items()
                if name.startswith(f"{path}/")
            }

        with suppress(FileNotFoundError):
            return self._repeat(find)
        return {}

    def names(self) -> list[str]:
        """Return the names of the files and folders in this folder, ascending."""

        def list_names(system: AbstractFileSystem, path: str) -> list[str]:
            system.invalidate_cache()
            entries = system.ls(path, detail=False)
            return sorted({entry.rstrip("/").rpartition("/")[2] for entry in entries} - {""})

        with suppress(FileNotFoundError, NotADirectoryError):
            return self._repeat(list_names)
        return []

    def read(self) -> bytes | None:
        """Return the content of a file, or None if there is no such file."""
        with suppress(FileNotFoundError):
            return self._repeat(lambda system, path: bytes(system.cat_file(path)))
        return None

    def read_range(self, start: int, length: int) -> bytes:
        """Return exactly `length` bytes of a file, from the byte `start`.

        Raises:
            UserError: There is no such file, or it ends before.
        """

        def read(system: AbstractFileSystem, path: str) -> bytes:
            content = bytes(system.cat_file(path, start=start, end=start + length))
            if len(content) != length:
                raise CutError(len(content), length)
            return content

        if not length:
            return b""
        try:
            return self._repeat(read)
        except FileNotFoundError as error:
            raise self._missing() from error

    def write(self, content: bytes) -> None:
        """Write a file, replacing one that is there. Readers see the old or the new file."""

        def put(system: AbstractFileSystem, path: str) -> None:
            if self.path is None:
                system.pipe_file(path, content)
                return
            with replacing(self.path) as temporary:
                temporary.write_bytes(content)

        self._repeat(put, makes=True)

    def create(self, content: bytes) -> bool:
        """Write a file if there is none of this name, and return whether its content is `content`.

        Of several that do so at the same time, one succeeds. In a store without conditional writes
        the last one does, and the others may have been told so before.
        """

        def create(system: AbstractFileSystem, path: str) -> bool:
            try:
                if self.path is not None:
                    _create_local(self.path, content)
                    return True
                system.pipe_file(path, content, mode="create")
            except FileExistsError:
                return False
            except OSError as error:
                if error.errno == errno.ENOSYS:
                    return self._create_unconditionally(content)
                if error.errno == errno.EINVAL and self.exists():
                    return False  # some stores do not say which condition failed
                raise
            return True

        # The answer to an attempt that succeeded may have been lost.
        return self._repeat(create, makes=True) or self.read() == content

    def upload(self, file: Path) -> None:
        """Write a file with the content of a local one."""

        def put(system: AbstractFileSystem, path: str) -> None:
            if self.path is None:
                system.put_file(str(file), path)
                return
            with replacing(self.path) as temporary:
                shutil.copyfile(file, temporary)

        self._repeat(put, makes=True)

    def download(self, file: Path, size: int | None = None) -> None:
        """Write this file's content to a local file, which may be there in part after an error.

        Args:
            file: The local file.
            size: Expected size in bytes. A transfer of another size is repeated.

        Raises:
            UserError: There is no such file, or it has another size.
        """

        def get(system: AbstractFileSystem, path: str) -> None:
            system.get_file(path, str(file))
            if size is not None and (found := file.stat().st_size) != size:
                error = CutError(found, size)
                raise error if self.size() == size else self._failed(error)

        try:
            self._repeat(get)
        except FileNotFoundError as error:
            raise self._missing() from error

    def copy_to(self, other: Place) -> None:
        """Copy this file to another place of the same file system, without reading it here.

        Raises:
            UserError: There is no such file.
        """
        target = other._system()[1]
        try:
            self._repeat(lambda system, path: system.cp_file(path, target))
        except FileNotFoundError as error:
            raise self._missing() from error

    def remove(self) -> None:
        """Remove a file, if it is there."""
        with suppress(FileNotFoundError):
            self._repeat(lambda system, path: system.rm_file(path))

    def _create_unconditionally(self, content: bytes) -> bool:
        if self.exists():
            return False
        self.write(content)
        return self.read() == content

    def _system(self) -> tuple[AbstractFileSystem, str]:
        """Return the file system, and the path that it uses for this place."""
        from fsspec.core import url_to_fs  # noqa: PLC0415
        from fsspec.implementations.local import LocalFileSystem  # noqa: PLC0415

        if (path := self.path) is not None:  # names such as `a::b` are not parsed
            return LocalFileSystem(), os.path.abspath(path)
        try:
            system, name = url_to_fs(self.url)
        except (ValueError, ImportError) as error:
            raise UserError(
                f"{self.url}: cannot be opened ({first_line(error)}). Expected a folder or a URL "
                "such as s3://bucket/catalog, and its package."
            ) from error
        return system, str(name).rstrip("/")

    def _repeat(
        self, action: Callable[[AbstractFileSystem, str], Result], *, makes: bool = False
    ) -> Result:
        """Call `action` until it succeeds, at most `len(_WAITS) + 1` times.

        Args:
            action: Receives the file system and the path.
            makes: Whether it makes a file, whose folder must be there.

        Raises:
            UserError: It failed each time, or in a way that does not heal.
            FileNotFoundError: The file does not exist.
            NotADirectoryError: It is not a folder.
        """
        for wait in (*_WAITS, None):
            try:
                system, path = self._system()
                if makes and not _protocols(system) & _BUCKET_PROTOCOLS:
                    system.makedirs(path.rpartition("/")[0], exist_ok=True)
                return action(system, path)
            except UserError:
                raise
            except Exception as error:
                if isinstance(error, FileNotFoundError | NotADirectoryError) and not makes:
                    raise
                if wait is None or not is_transient(error):
                    raise self._failed(error) from error
                logger.debug("%s: %s, again in %.1f s", self.url, first_line(error), wait)
                time.sleep(wait * random.uniform(0.5, 1))  # noqa: S311 (spreads the attempts)
        raise AssertionError("the last attempt returns or raises")

    def _failed(self, error: Exception) -> UserError:
        if sentence := describe_disk_failure(error):
            return UserError(sentence)
        return UserError(
            f"{self.url}: access failed ({type(error).__name__}: {first_line(error)}). Check the "
            "URL, your credentials and the network, then run the command again."
        )

    def _missing(self) -> UserError:
        return UserError(f"{self.url}: there is no such file. Check the URL.")


Folder = Path | Place
"""A folder: a path on this machine is a `pathlib.Path`, and a URL is a `Place`."""


def parse_folder(text: str | Folder) -> Folder:
    """Return a folder by its path or URL. `pathlib` keeps one slash of a URL, which is enough.

    Raises:
        UserError: The URL's file system is unknown or not installed.
    """
    if isinstance(text, Place):
        return text
    if (url := as_url(text)) is None:
        return Path(text)
    place = Place(url)
    return place.path or place.check()


def _create_local(path: Path, content: bytes) -> None:
    temporary = temporary_path(path)
    try:
        temporary.write_bytes(content)
        os.link(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _protocols(system: AbstractFileSystem) -> set[str]:
    return {system.protocol} if isinstance(system.protocol, str) else set(system.protocol)
