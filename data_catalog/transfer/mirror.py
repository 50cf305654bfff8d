"""A catalog on a store, opened for training.

Its small files are copied once to the cache of this machine: the manifest, tables, targets and the
tokenizer, in the layout of a catalog and compared with their checksums. Token ids are fetched by
windows, see `fetched_tokens`. Documents and signals are not read.
"""

import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Int

from data_catalog.errors import UserError
from data_catalog.folders import cache_folder
from data_catalog.format.files import CatalogFiles, open_files
from data_catalog.format.layout import MANIFEST, OPTIONAL
from data_catalog.format.lock import sole_holder
from data_catalog.format.manifest import Manifest, fingerprint, read_exported_manifest
from data_catalog.format.token_windows import TokenWindows
from data_catalog.place import Folder, Place
from data_catalog.transfer.fetched_tokens import FetchedTokens
from data_catalog.transfer.ranges import ObjectRanges
from data_catalog.transfer.token_heads import TokenHeads
from data_catalog.transfer.window_file import WindowFile

_HELD_OUT_SHARE = 1 / 8  # of the cache, for the sequences of evaluations
_ROOM = 4  # records per sequence of a small split, so that hardly any replaces another


@dataclass(frozen=True)
class StoredTokens:
    """The token files of a catalog on a store. Implements `RemoteTokens`."""

    objects: ObjectRanges
    manifest: Manifest
    """The manifest on the store."""
    sequence_tokens: int
    """Tokens per training sequence."""
    folder: Path
    """Folder of the fetched sequences."""
    maximum_bytes: int
    """Maximum size of the files there that this process uses."""

    def open(
        self, split: str, names: Sequence[str], ends: Int[np.ndarray, " files"]
    ) -> TokenWindows:
        """Return the windows of several token files. See `RemoteTokens.open`.

        Raises:
            UserError: The store cannot be reached, or the manifest lacks one of the files.
        """
        sizes = {name: file.bytes for name, file in self.manifest.files.items()}
        if unknown := [name for name in names if name not in sizes]:
            raise UserError(
                f"{self.objects.url}: {unknown[0]} is missing from the manifest. Do not use this "
                "catalog."
            )
        heads = TokenHeads(self.objects, names, ends, sizes)
        heads.open([0])  # The token ids of all files have one type.
        record_bytes = (self.sequence_tokens + 1) * heads[0].dtype.itemsize
        share = _HELD_OUT_SHARE if split == "heldout" else 1 - _HELD_OUT_SHARE
        enough = _ROOM * (int(ends.sum()) // self.sequence_tokens + len(ends)) * record_bytes
        records = WindowFile.open_unused(
            self.folder,
            f"{split}-{record_bytes}",
            record_bytes,
            min(int(share * self.maximum_bytes), enough),
        )
        return FetchedTokens(self.objects, names, heads, records)


def local_folder(catalog: Folder, version: int | None = None) -> Path:
    """Return a folder with the small files of a catalog: its own, or its copy on this machine.

    Args:
        catalog: The catalog.
        version: Version that is needed. None means the newest.

    Raises:
        UserError: There is no such catalog or version, or its store cannot be reached.
    """
    return (
        catalog
        if isinstance(catalog, Path)
        else _mirror(catalog, read_exported_manifest(catalog, version))
    )


def open_catalog(
    catalog: Folder, version: int | None, sequence_tokens: int, cache_bytes: int
) -> CatalogFiles:
    """Open a version of a catalog for training.

    Args:
        catalog: The catalog.
        version: Version of the catalog. None means the newest.
        sequence_tokens: Tokens per training sequence.
        cache_bytes: Maximum size of the sequences that this process keeps on this machine, if the
            catalog is on a store.

    Raises:
        UserError: There is no such catalog or version, it is damaged, or its store cannot be
            reached.
    """
    if isinstance(catalog, Path):
        return open_files(catalog, version, sequence_tokens)
    manifest = read_exported_manifest(catalog, version)
    root = _mirror(catalog, manifest)
    sizes = {name: file.bytes for name, file in manifest.files.items()}
    tokens = StoredTokens(
        ObjectRanges(catalog.url, sizes),
        manifest,
        sequence_tokens,
        root.parent / "sequences" / platform.node(),
        cache_bytes,
    )
    files = open_files(root, manifest.version, sequence_tokens)
    return replace(files, remote_tokens=tokens)


def repair_mirror(catalog: Place, version: int | None) -> None:
    """Fetch the small files again that differ from their checksums."""
    manifest = read_exported_manifest(catalog, version)
    root = _mirror_folder(manifest)
    with sole_holder(root.parent, wait=True):
        _fetch(catalog, root, manifest)


def _mirror_folder(manifest: Manifest) -> Path:
    """Return the folder of a catalog's small files. A changed catalog has another one."""
    return cache_folder() / "catalogs" / fingerprint(manifest)[:32] / "catalog"


def _mirror(catalog: Place, manifest: Manifest) -> Path:
    """Copy the small files of a catalog that are not here, and return their folder."""
    root = _mirror_folder(manifest)
    if not _is_whole(root, manifest):
        # Others wait here, and find the files.
        with sole_holder(root.parent, wait=True):
            if not _is_whole(root, manifest):
                _fetch(catalog, root, manifest)
    return root


def _fetch(catalog: Place, root: Path, manifest: Manifest) -> None:
    from data_catalog.transfer.copy import fetch_catalog  # noqa: PLC0415 - imports DuckDB

    fetch_catalog(catalog.url, root, version=manifest.version, without=OPTIONAL)


def _is_whole(root: Path, manifest: Manifest) -> bool:
    def size(name: str) -> int | None:
        try:
            return os.stat(root / name).st_size
        except OSError:
            return None

    names = [name for name in manifest.files if name.split("/")[0] not in OPTIONAL]
    return size(MANIFEST) is not None and all(
        size(name) == manifest.files[name].bytes for name in names
    )
