"""Publish a version of a catalog in an object store.

Files that parts have there are copied inside the store, and the others are uploaded. The manifest
object is put last: it makes the version the catalog's.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from data_catalog.errors import UserError
from data_catalog.format.damage import VERIFY_REMEDY, DamagedFileError
from data_catalog.format.layout import FOLDERS, MANIFEST
from data_catalog.format.manifest import (
    FileIdentity,
    Manifest,
    json_text,
    read_manifest,
    version_manifest,
)
from data_catalog.lease import Lease
from data_catalog.place import Place
from data_catalog.transfer.several import for_each
from pipeline.publish.link_files import PlacedFile


def put_version(
    placed: Sequence[PlacedFile],
    manifest: Manifest,
    folder: Path,
    out: Place,
    lease: Lease | None = None,
) -> None:
    """Publish a version.

    A version after the first leaves everything that is there. The first replaces a catalog of
    another build: its manifest is removed first, and its other files last.

    Args:
        placed: The version's new files.
        manifest: The version's manifest.
        folder: The local folder that the files' paths are in.
        out: The catalog.
        lease: Must still be held when a file is put.

    Raises:
        UserError: The store failed, or the lease was lost.
    """
    earlier = _earlier_manifest(out)
    before = earlier.files if earlier else {}
    replaced = set(before) if manifest.version == 1 else set()
    files = {file.path.relative_to(folder).as_posix(): file for file in placed}
    there = _sizes(out)
    new = {
        name: file
        for name, file in files.items()
        if before.get(name) != file.identity or there.get(name) != file.identity.bytes
    }
    if replaced & new.keys():
        (out / MANIFEST).remove()

    def put(name: str) -> None:
        if lease is not None:
            lease.check()
        file = new[name]
        if file.stored is not None:
            file.stored.copy_to(out / name)
        else:
            (out / name).upload(file.path)

    for_each(put, new)
    check_sizes(out, manifest.files, "Run the command again.")
    text = json_text(manifest.content())
    (out / version_manifest(manifest.version)).write(text)
    if lease is not None:
        lease.check()
    (out / MANIFEST).write(text)
    for_each(lambda name: (out / name).remove(), replaced - manifest.files.keys())


def check_sizes(out: Place, files: Mapping[str, FileIdentity], remedy: str = VERIFY_REMEDY) -> None:
    """Compare the sizes of a catalog's files with its manifest.

    Raises:
        DamagedFileError: A file is missing, or has another size.
        UserError: The store cannot be read.
    """
    there = _sizes(out)
    for name, identity in files.items():
        if there.get(name) != identity.bytes:
            expected = f"{there.get(name, 0):,} bytes, expected {identity.bytes:,}"
            fault = expected if name in there else "the file is missing"
            raise DamagedFileError(out / name, fault, remedy)


def _earlier_manifest(out: Place) -> Manifest | None:
    """Return the manifest of the catalog that is there, or None if there is none that is whole."""
    with suppress(UserError):
        return read_manifest(out)
    return None


def _sizes(out: Place) -> dict[str, int]:
    """Return the sizes of the catalog's files, without those of its work folder."""
    return {
        f"{folder}/{name}": size
        for folder in FOLDERS
        for name, size in (out / folder).sizes().items()
    }
