"""The files of a catalog and of runs, as DuckDB reads them: it has no way to write one."""

from __future__ import annotations

import glob
import os
import secrets
import shutil
import stat
import tempfile
import threading
import weakref
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fsspec import AbstractFileSystem

from data_catalog.format.stored_file import StoredFile

if TYPE_CHECKING:
    import duckdb

SCHEME = "readonly://"


class ReadOnlyFiles(AbstractFileSystem):  # type: ignore[misc]
    """Regular files below some folders, under paths that start with `SCHEME`.

    DuckDB's own settings can limit a query to folders, but not to reading. Its file system for
    local paths is therefore closed for queries, and this one only opens files to read them.
    """

    protocol = SCHEME.removesuffix("://")
    cachable = False

    def __init__(self, folders: Sequence[Path], check: Callable[[Path], None]) -> None:
        """Prepare to read.

        Args:
            folders: Folders to read from.
            check: Called with a file's path before it is opened. What it raises ends the query.
        """
        super().__init__()
        self._check = check
        self._folders = [os.path.realpath(folder) for folder in folders]

    def close_others(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Leave only these files to queries, and a new folder for what does not fit in memory."""
        # DuckDB compares paths as they are written in a view, where special characters are escaped.
        readable = [
            f"{SCHEME}{written}/"
            for folder in self._folders
            for written in dict.fromkeys((folder, glob.escape(folder)))
        ]
        spilled = Path(tempfile.gettempdir()) / f"clustermix-query-{secrets.token_hex(8)}"
        weakref.finalize(self, shutil.rmtree, spilled, ignore_errors=True)
        connection.execute("SET temp_directory = $spilled", {"spilled": str(spilled)})
        connection.execute("SET allowed_directories = $readable", {"readable": readable})
        connection.execute("SET enable_external_access = false")
        connection.execute("SET lock_configuration = true")

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return path.removeprefix(SCHEME)

    def open(self, path: str, mode: str = "rb", **_: Any) -> ReadOnlyFile | StoredFile:
        """Open a file.

        Raises:
            PermissionError: The mode is not for reading, or the file lies outside the folders.
            FileNotFoundError: There is no such file.
            DamagedFileError: The check found a damaged file.
        """
        if mode not in {"r", "rb"}:
            raise PermissionError(f"{self._strip_protocol(path)}: catalogs are read-only")
        place = self._inside(path)
        self._check(Path(place))
        return ReadOnlyFile(place)

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        """Return the name, size in bytes and type of a file or folder."""
        place = self._inside(path)
        status = os.stat(place)
        kind = "directory" if stat.S_ISDIR(status.st_mode) else "file"
        return {"name": place, "size": status.st_size, "type": kind}

    def modified(self, path: str) -> datetime:
        """Return the time of the last change."""
        return datetime.fromtimestamp(os.stat(self._inside(path)).st_mtime, UTC)

    def glob(self, path: str, **_: Any) -> list[str]:
        """Return the files that match a pattern, ascending.

        Raises:
            PermissionError: The path is no pattern and lies outside the folders.
        """
        pattern = self._strip_protocol(path)
        if not glob.has_magic(pattern):
            self._inside(path)
        return sorted(
            place for place in glob.iglob(pattern, recursive=True) if self._is_inside(place)
        )

    def _inside(self, path: str) -> str:
        place = self._strip_protocol(path)
        if not self._is_inside(place):
            raise PermissionError(
                f"{place}: reading outside the catalog and its runs is disabled by configuration"
            )
        return place

    def _is_inside(self, place: str) -> bool:
        real = os.path.realpath(place)
        return any(os.path.commonpath([real, folder]) == folder for folder in self._folders)


class ReadOnlyFile:
    """An open file with a position of its own for each thread.

    DuckDB's threads share it. Each moves the position and then reads, in two calls.
    """

    def __init__(self, path: str) -> None:
        self._positions = threading.local()
        # O_NONBLOCK: opening a pipe would block.
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        if not stat.S_ISREG(os.fstat(self._descriptor).st_mode):
            self.close()
            raise PermissionError(f"{path}: is not a regular file")

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move this thread's position and return it."""
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self.tell()}
        self._positions.at = offset + (start[whence] if whence in start else self._size())
        return self.tell()

    def tell(self) -> int:
        """Return this thread's position in bytes."""
        return int(getattr(self._positions, "at", 0))

    def read(self, size: int = -1) -> bytes:
        """Return up to `size` bytes from this thread's position, or all that follow."""
        position = self.tell()
        content = os.pread(self._descriptor, self._size() if size < 0 else size, position)
        self._positions.at = position + len(content)
        return content

    def _size(self) -> int:
        return os.fstat(self._descriptor).st_size

    def close(self) -> None:
        """Close the file. Closing it again has no effect."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def __del__(self) -> None:
        if hasattr(self, "_descriptor"):
            self.close()
