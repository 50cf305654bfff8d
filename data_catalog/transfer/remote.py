"""Where a catalog goes or comes from: a folder or any fsspec URL. Credentials are those of fsspec's configuration and the environment."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_catalog.errors import UserError

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

BUCKETS = {
    "s3",
    "s3a",
    "gs",
    "gcs",
    "abfs",
    "abfss",
    "az",
    "oss",
    "memory",
}  # have no folders; to make one would make a bucket


@dataclass(frozen=True)
class Place:
    """Names are below `base`, with slashes."""

    url: str
    system: AbstractFileSystem
    base: str

    @property
    def folder(self) -> Path | None:
        """None: not on this machine."""
        return Path(self.base) if "file" in self._protocols() else None

    @contextmanager
    def reaching(self) -> Iterator[None]:
        """File systems raise errors of many libraries, which have nothing in common: a sentence of any of them."""
        try:
            yield
        except UserError:
            raise
        except Exception as error:
            said = " ".join(str(error).split())
            raise UserError(
                f"{self.url}: failed ({type(error).__name__}: {said}); check the address, your credentials and the disk, then run it again"
            ) from error

    def sizes(self) -> dict[str, int]:
        """Bytes of every file there."""
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
        """All of a file; None if it is not there."""
        try:
            content: bytes = self.system.cat_file(f"{self.base}/{name}")
        except FileNotFoundError:
            return None
        return content

    def write(self, name: str, content: bytes) -> None:
        self._make_parent(name)
        self.system.pipe_file(f"{self.base}/{name}", content)

    def put(self, file: Path, name: str) -> None:
        self._make_parent(name)
        self.system.put_file(str(file), f"{self.base}/{name}")

    def get(self, name: str, file: Path) -> None:
        self.system.get_file(f"{self.base}/{name}", str(file))

    def remove(self, name: str) -> None:
        self.system.rm_file(f"{self.base}/{name}")

    def _make_parent(self, name: str) -> None:
        if not self._protocols() & BUCKETS:
            self.system.makedirs(f"{self.base}/{name}".rpartition("/")[0], exist_ok=True)

    def _protocols(self) -> set[str]:
        return (
            {self.system.protocol}
            if isinstance(self.system.protocol, str)
            else set(self.system.protocol)
        )


def open_place(url: str) -> Place:
    """Nothing is asked of a server yet.

    Raises:
        UserError: no file system is known, or installed, for such a URL.
    """
    from fsspec.core import url_to_fs  # noqa: PLC0415

    try:
        system, base = url_to_fs(url)
    except (ValueError, ImportError) as error:
        raise UserError(
            f"{url}: cannot be opened ({error}); expected a folder or a URL such as s3://bucket/catalog"
        ) from error
    return Place(url, system, base.rstrip("/"))
