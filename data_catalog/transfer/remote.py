"""Folders at any fsspec URL, as sources and destinations of catalogs.

Credentials come from fsspec's configuration and from the environment.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_catalog.disk import describe_disk_failure
from data_catalog.errors import UserError
from data_catalog.temporary import replacing

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

# Object stores have no folders. Creating one would create a bucket.
_BUCKET_PROTOCOLS = {"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "oss", "memory"}


@dataclass(frozen=True)
class RemoteFolder:
    """A folder on a file system. Names of files are relative to `base`, with forward slashes."""

    url: str
    system: AbstractFileSystem
    base: str

    @property
    def folder(self) -> Path | None:
        """The local path, or None if it is not on this machine."""
        return Path(self.base) if "file" in self._protocols() else None

    @contextmanager
    def converting_errors(self) -> Iterator[None]:
        """Convert any file-system error into a `UserError`.

        fsspec backends share no base exception.

        Raises:
            UserError: The file system failed, or the local disk did.
        """
        try:
            yield
        except UserError:
            raise
        except Exception as error:
            if sentence := describe_disk_failure(error):
                raise UserError(sentence) from error
            message = " ".join(str(error).split())
            raise UserError(
                f"{self.url}: access failed ({type(error).__name__}: {message}). Check the URL, "
                "your credentials and the free disk space, then run the command again."
            ) from error

    def sizes(self) -> dict[str, int]:
        """Return the size in bytes of every file."""
        self.system.invalidate_cache()
        try:
            found: Mapping[str, Mapping[str, Any]] = self.system.find(self.base, detail=True)
        except FileNotFoundError:
            return {}
        return {
            path.removeprefix(f"{self.base}/"): int(about["size"])
            for path, about in found.items()
            if path.startswith(f"{self.base}/")
        }

    def read(self, name: str) -> bytes | None:
        """Return the content of a file, or None if it does not exist."""
        try:
            content: bytes = self.system.cat_file(f"{self.base}/{name}")
        except FileNotFoundError:
            return None
        return content

    def write(self, name: str, content: bytes) -> None:
        if self.folder is not None:
            with replacing(self.folder / name) as temporary:
                temporary.write_bytes(content)
            return
        self._make_parent(name)
        self.system.pipe_file(f"{self.base}/{name}", content)

    def put(self, file: Path, name: str) -> None:
        if self.folder is not None:
            with replacing(self.folder / name) as temporary:
                shutil.copyfile(file, temporary)
            return
        self._make_parent(name)
        self.system.put_file(str(file), f"{self.base}/{name}")

    def get(self, name: str, file: Path) -> None:
        self.system.get_file(f"{self.base}/{name}", str(file))

    def remove(self, name: str) -> None:
        self.system.rm_file(f"{self.base}/{name}")

    def _make_parent(self, name: str) -> None:
        if not self._protocols() & _BUCKET_PROTOCOLS:
            self.system.makedirs(f"{self.base}/{name}".rpartition("/")[0], exist_ok=True)

    def _protocols(self) -> set[str]:
        return (
            {self.system.protocol}
            if isinstance(self.system.protocol, str)
            else set(self.system.protocol)
        )


def open_remote(url: str) -> RemoteFolder:
    """Return the folder at a URL, without contacting a server.

    Raises:
        UserError: The URL's file system is unknown or not installed.
    """
    from fsspec.core import url_to_fs  # noqa: PLC0415

    try:
        system, base = url_to_fs(url)
    except (ValueError, ImportError) as error:
        raise UserError(
            f"{url}: cannot be opened ({error}). Expected a folder or a URL such as "
            "s3://bucket/catalog."
        ) from error
    return RemoteFolder(url, system, base.rstrip("/"))
