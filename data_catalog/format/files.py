"""An open catalog on disk: its manifest and the paths of its files, read once and handed on."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pyarrow as pa

from data_catalog.errors import UserError
from data_catalog.format.damage import read_table
from data_catalog.format.file_cache import cache_folder_of
from data_catalog.format.layout import Layout, Levels
from data_catalog.format.manifest import Manifest, is_inside, read_manifest
from data_catalog.format.stored_file import StoredFile
from data_catalog.format.token_windows import RemoteTokens
from data_catalog.format.verified import VerifiedFiles
from data_catalog.place import Folder, Place


@dataclass(frozen=True)
class CatalogFiles:
    """One version of a finished catalog.

    Everything that reads a catalog takes this: a function that needs the manifest, the levels of
    the tree or the place of a file never opens `catalog.json` again.
    """

    layout: Layout
    manifest: Manifest
    sequence_tokens: int = 0
    """Tokens per training sequence. 0 where documents are not cut into sequences."""
    remote_tokens: RemoteTokens | None = None
    """The token files, if they are not on this machine. The other files that a trainer needs are
    below `layout.root`."""
    store: Place | None = None
    """The catalog, if it is in a store. Its files are then downloaded to `layout` when they are
    needed. Large ones are read by ranges."""

    @property
    def root(self) -> Path:
        """The folder of the catalog on this machine."""
        return self.layout.root

    @property
    def address(self) -> Folder:
        """The path or URL of the catalog, for messages."""
        return self.store or self.root

    @property
    def version(self) -> int:
        """The number of this version, from 1."""
        return self.manifest.version

    @cached_property
    def levels(self) -> Levels:
        """The levels of the catalog's tree."""
        return self.manifest.levels

    @property
    def end_of_text(self) -> int:
        """Id of the token that closes each document. Sequences are padded with it."""
        return self.manifest.tokenizer.end_of_text

    @cached_property
    def verified(self) -> VerifiedFiles:
        """The comparison of this version's files with their checksums."""
        return VerifiedFiles(self.root, self.manifest.files, self.store)

    def open_stored(self, path: Path) -> StoredFile | None:
        """Open a file of a catalog in a store to read it by ranges.

        Returns:
            The open file, or None if it is on this machine.
        """
        name = path.relative_to(self.root).as_posix()
        if self.store is None or name not in self.manifest.files or path.is_file():
            return None
        return StoredFile(self.store / name, self.manifest.files[name].bytes)

    def compare(self, path: Path) -> None:
        """Compare the checksum of a file, one of `layout`.

        Raises:
            DamagedFileError: The file is missing or damaged.
            UserError: The file is a link to a place outside the catalog.
        """
        name = path.relative_to(self.root).as_posix()
        if not is_inside(self.root, name):
            raise UserError(f"{path}: is outside the catalog. Do not use this catalog.")
        self.verified.compare([name])

    def read_table(
        self, path: Path, schema: pa.Schema, columns: Sequence[str] | None = None
    ) -> pa.Table:
        """Read columns of a Parquet file after comparing its checksum.

        Args:
            path: The file, one of `layout`.
            schema: Its types.
            columns: Names in `schema`. None means all.

        Raises:
            DamagedFileError: The file is missing or damaged, or has other columns.
            UserError: The file is a link to a place outside the catalog.
        """
        self.compare(path)
        return read_table(path, schema, columns)

    def require(self, folder: str) -> None:
        """Check that this copy of the catalog has one of its optional folders.

        Raises:
            UserError: The catalog was fetched without `folder`.
        """
        if folder in self.manifest.left_out:
            raise UserError(
                f"{self.address}: this copy was fetched without {folder}. "
                "Run `clustermix fetch catalog` again without --without."
            )


def open_files(root: Folder, version: int | None = None, sequence_tokens: int = 0) -> CatalogFiles:
    """Open one version of the catalog at `root`, its newest if `version` is None.

    Of a catalog in a store, only the manifest is read.

    Raises:
        UserError: There is no finished catalog, it has no such version, or its manifest is damaged.
    """
    manifest = read_manifest(root, version)
    if isinstance(root, Path):
        return CatalogFiles(Layout(root, manifest.version), manifest, sequence_tokens)
    local = cache_folder_of(root, manifest.fingerprint)
    return CatalogFiles(Layout(local, manifest.version), manifest, sequence_tokens, store=root)
