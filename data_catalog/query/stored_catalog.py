"""The files of a catalog in a store, as DuckDB reads them."""

from __future__ import annotations

import glob
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from data_catalog.format.files import CatalogFiles
from data_catalog.format.manifest import FileIdentity
from data_catalog.format.stored_file import StoredFile
from data_catalog.query.read_only_files import ReadOnlyFile, ReadOnlyFiles


class StoredCatalogFiles(ReadOnlyFiles):
    """The files that a manifest in a store names, and those of runs on this machine.

    Paths are those of the catalog's folder in the cache, whose files are downloaded when they are
    opened. Large ones are read by ranges instead. Nothing else of the store can be read.
    """

    def __init__(
        self, catalog: CatalogFiles, runs: Sequence[Path], check: Callable[[Path], None]
    ) -> None:
        """Prepare to read.

        Args:
            catalog: The catalog.
            runs: Folders of runs.
            check: See `ReadOnlyFiles`. It downloads a file that is not large.
        """
        super().__init__((catalog.root, *runs), check)
        self._catalog = catalog
        paths = [str(catalog.root / name) for name in catalog.manifest.files]
        self._paths = {glob.escape(path): path for path in paths}

    def open(self, path: str, mode: str = "rb", **options: Any) -> ReadOnlyFile | StoredFile:
        """Open a file. See `ReadOnlyFiles.open`."""
        if mode in {"r", "rb"} and self._identity(path):
            place = Path(self._inside(path))
            self._check(place)
            if stored := self._catalog.open_stored(place):
                return stored
        return super().open(path, mode, **options)

    def info(self, path: str, **options: Any) -> dict[str, Any]:
        """Return the name, size in bytes and type of a file or folder."""
        if identity := self._identity(path):
            return {"name": self._inside(path), "size": identity.bytes, "type": "file"}
        return super().info(path, **options)

    def modified(self, path: str) -> datetime:
        """Return the time of the last change. Files of a catalog do not change."""
        return datetime.fromtimestamp(0, UTC) if self._identity(path) else super().modified(path)

    def glob(self, path: str, **options: Any) -> list[str]:
        """Return the files that match a pattern, ascending. See `ReadOnlyFiles.glob`."""
        if stored := self._paths.get(self._strip_protocol(path)):
            return [stored]
        return super().glob(path, **options)

    def _identity(self, path: str) -> FileIdentity | None:
        place = Path(self._strip_protocol(path))
        if not place.is_relative_to(self._catalog.root):
            return None
        name = place.relative_to(self._catalog.root).as_posix()
        return self._catalog.manifest.files.get(name)
