"""Copy a catalog to and from an object store.

Catalogs are built and used in local folders. `catalog.json` is always written last.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from data_catalog.errors import UserError
from data_catalog.folders import check_utf8_path
from data_catalog.format.layout import MANIFEST, OPTIONAL
from data_catalog.format.lock import sole_holder
from data_catalog.format.manifest import (
    FileIdentity,
    Manifest,
    is_inside,
    parse_manifest,
    read_exported_manifest,
    read_manifest,
    sha256_file,
    version_manifest,
    write_json,
)
from data_catalog.format.own_files import refuse_outside_links
from data_catalog.place import Place
from data_catalog.query.shell_files import write_database
from data_catalog.temporary import remove_unfinished, replacing

# Manifest of an unfinished export. It identifies the files that are already there.
UNFINISHED_MANIFEST = "catalog.json.part"

# Called with the number of finished files, of all files, and of bytes copied so far.
OnFileCopied = Callable[[int, int, int], None]


@dataclass(frozen=True)
class Copied:
    """Result of a transfer."""

    place: str
    """Folder or URL of the copy."""
    version: int
    """Newest version in the copy."""
    files: int
    """Number of files in the copy, without manifests."""
    copied: int
    """Number of files copied now."""
    bytes: int
    """Size of the files copied now."""
    left_out: tuple[str, ...] = ()
    """Parts of the catalog that are missing from the copy."""


def export_catalog(
    root: Path,
    url: str,
    *,
    version: int | None = None,
    workers: int = 8,
    on_file: OnFileCopied | None = None,
) -> Copied:
    """Copy the catalog at `root` to `url`.

    After an interruption, the same call resumes and skips files that were already copied. Checksums
    are verified before a file is sent, sizes afterwards. `catalog.json` is written last, so readers
    find the previous version or no catalog until the copy is complete.

    Args:
        root: Folder of the catalog.
        url: Folder or fsspec URL of the copy.
        version: Newest version to copy. Earlier versions are included. None means all.
        workers: Number of files copied in parallel.
        on_file: Progress callback.

    Raises:
        UserError: There is no such catalog or version, a file is missing or damaged, `url` contains
            something else, or `url` cannot be written.
    """
    manifests = _local_manifests(root, version)
    newest = manifests[-1]
    files = {name: file for manifest in manifests for name, file in manifest.files.items()}
    if newest.left_out:
        raise UserError(
            f"{root}: this copy was fetched without {', '.join(newest.left_out)}. Fetch these "
            "parts first, then export the catalog."
        )
    for name, file in files.items():
        if not is_inside(root, name):
            raise UserError(f"{root}: {name} is outside the catalog. Do not use this catalog.")
        if not (root / name).is_file() or (root / name).stat().st_size != file.bytes:
            raise UserError(
                f"{root}: {name} is missing or has a wrong size. Run `clustermix verify {root}` "
                "to see which files are damaged."
            )
    place = Place(url).check()
    if place.path:
        check_utf8_path(place.path, "copy")
        refuse_outside_links(place.path)
    there = place.sizes()
    _refuse_others(place, there, manifests)
    if MANIFEST not in there:
        (place / UNFINISHED_MANIFEST).write(_text(newest))
    wanted = {name: file for name, file in files.items() if there.get(name) != file.bytes}

    def put(name: str) -> int:
        if sha256_file(root / name) != files[name].sha256:
            raise UserError(
                f"{root}: {name} is damaged: its checksum differs from the manifest. The file "
                "was not sent. Build the catalog again."
            )
        (place / name).upload(root / name)
        return files[name].bytes

    _each(put, wanted, len(files), workers, on_file)
    there = place.sizes()
    if lost := [name for name, file in files.items() if there.get(name) != file.bytes]:
        raise UserError(
            f"{url}: {lost[0]} has {there.get(lost[0], 0)} bytes, expected "
            f"{files[lost[0]].bytes}. Run the command again."
        )
    for manifest in manifests:
        (place / version_manifest(manifest.version)).write(_text(manifest))
    if place.path:
        _publish(place.path, newest)
    else:
        (place / MANIFEST).write(_text(newest))  # objects are written atomically
    if UNFINISHED_MANIFEST in there:
        (place / UNFINISHED_MANIFEST).remove()
    return Copied(
        url, newest.version, len(files), len(wanted), sum(file.bytes for file in wanted.values())
    )


def fetch_catalog(
    url: str,
    root: Path,
    *,
    version: int | None = None,
    without: Collection[str] = (),
    workers: int = 8,
    on_file: OnFileCopied | None = None,
) -> Copied:
    """Copy the catalog at `url` into the folder `root`.

    After an interruption, the same call resumes. Sizes and checksums are verified before a file is
    renamed to its final name. `catalog.json` is written last, and `catalog.duckdb` is created
    again. The remote catalog is not trusted: a manifest that names files outside the folders of a
    catalog is refused.

    Args:
        url: Folder or fsspec URL of the catalog.
        root: Folder of the copy.
        version: Newest version to copy. Earlier versions are included. None means all.
        without: Parts to omit, among `OPTIONAL`. The trainer needs none of `documents`, `signals`
            and `verdicts`. A later call without this argument copies the rest.
        workers: Number of files copied in parallel.
        on_file: Progress callback.

    Raises:
        UserError: There is no finished catalog or no such version at `url`, its manifest or a file
            is damaged, `root` contains something else, or the disk is too small.
    """
    check_utf8_path(root, "out")
    if unknown := sorted(set(without) - set(OPTIONAL)):
        raise UserError(
            f"without {', '.join(unknown)}: not optional. Expected some of {', '.join(OPTIONAL)}."
        )
    place = Place(url).check()
    manifests = _remote_manifests(place, version)
    newest = manifests[-1]
    with sole_holder(
        root, f"{root}: another process is fetching a catalog into this folder. Wait for it."
    ):
        _refuse_other_folder(root, url, manifests)
        files = {
            name: file
            for manifest in manifests
            for name, file in manifest.files.items()
            if name.split("/")[0] not in without
        }
        for name in (*files, *(version_manifest(manifest.version) for manifest in manifests)):
            if not is_inside(root, name):
                raise UserError(
                    f"{root}: {name} is a link to a file outside this folder. Give another folder."
                )
        remove_unfinished({(root / name).parent for name in files})
        wanted = {name: file for name, file in files.items() if not _is_here(root / name, file)}
        size = sum(file.bytes for file in wanted.values())
        if size > (free := shutil.disk_usage(root).free):
            raise UserError(
                f"{root}: {size / 1e9:,.1f} GB are needed, {free / 1e9:,.1f} GB are free. Give "
                "another folder or delete files."
            )

        def get(name: str) -> int:
            with replacing(root / name) as temporary:
                (place / name).download(temporary)
                if not _is_here(temporary, files[name]):
                    raise UserError(
                        f"{url}: {name} does not have the size and checksum of the manifest. "
                        "Export the catalog again."
                    )
            return files[name].bytes

        _each(get, wanted, len(files), workers, on_file)
    for manifest in manifests:
        write_json(root / version_manifest(manifest.version), _without(manifest, without).content())
    local = _without(newest, without)
    _publish(root, local)
    return Copied(str(root), newest.version, len(files), len(wanted), size, local.left_out)


def _text(manifest: Manifest) -> bytes:
    return json.dumps(manifest.content(), indent=2, sort_keys=True).encode()


def _without(manifest: Manifest, without: Collection[str]) -> Manifest:
    """Return the manifest of a partial copy. Its fingerprint stays that of the whole catalog."""
    folders = {name.split("/")[0] for name in manifest.files}
    files = {n: file for n, file in manifest.files.items() if n.split("/")[0] not in without}
    left_out = tuple(sorted(folders & set(without)))
    return manifest.model_copy(update={"files": files, "left_out": left_out})


def _is_here(path: Path, file: FileIdentity) -> bool:
    return path.is_file() and path.stat().st_size == file.bytes and sha256_file(path) == file.sha256


def _each(
    copy: Callable[[str], int],
    wanted: Mapping[str, FileIdentity],
    files: int,
    workers: int,
    on_file: OnFileCopied | None,
) -> None:
    """Call `copy` for each file, largest first. After a failure, no further files are started."""
    done, size = files - len(wanted), 0
    with ThreadPoolExecutor(workers) as pool:
        try:
            for copied in as_completed(
                [
                    pool.submit(copy, name)
                    for name in sorted(wanted, key=lambda name: -wanted[name].bytes)
                ]
            ):
                done, size = done + 1, size + copied.result()
                if on_file:
                    on_file(done, files, size)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _local_manifests(root: Path, version: int | None) -> list[Manifest]:
    """Return the manifests of all versions up to `version`, oldest first."""
    newest = read_manifest(root, version)
    return [*(read_manifest(root, number) for number in range(1, newest.version)), newest]


def _remote_manifests(place: Place, version: int | None) -> list[Manifest]:
    """Return the manifests of all versions up to `version`, oldest first."""
    url, newest = place.url, read_exported_manifest(place)
    last = newest.version if version is None else version
    if not 1 <= last <= newest.version:
        raise UserError(f"{url}: version {last} not found. Expected 1 to {newest.version}.")
    manifests = []
    for number in range(1, last + 1):
        manifest = _read(place, version_manifest(number))
        if manifest is None or manifest.version != number:
            raise UserError(
                f"{url}: {version_manifest(number)} is missing or belongs to another version. "
                "Export the catalog again."
            )
        manifests.append(manifest)
    return manifests


def _read(place: Place, name: str) -> Manifest | None:
    text = (place / name).read()
    return None if text is None else parse_manifest(text, f"{place.url}/{name}")


def _refuse_others(place: Place, there: Collection[str], manifests: list[Manifest]) -> None:
    """Refuse a folder that contains something else, or a newer version of this catalog.

    Raises:
        UserError: The folder contains such files.
    """
    newest, known = manifests[-1], {manifest.fingerprint for manifest in manifests}
    existing = next(
        (_read(place, name) for name in (MANIFEST, UNFINISHED_MANIFEST) if name in there), None
    )
    if existing is None and any(name in there for name in newest.files):
        raise UserError(
            f"{place.url}: contains files of an unknown catalog. Remove them or give another URL."
        )
    if existing is not None and existing.fingerprint not in known:
        raise UserError(
            f"{place.url}: contains another catalog, or another version of this one "
            f"({existing.version}). Give another URL."
        )


def _refuse_other_folder(root: Path, url: str, manifests: list[Manifest]) -> None:
    if (root / MANIFEST).is_file():
        existing = read_manifest(root)
        if existing.fingerprint not in {manifest.fingerprint for manifest in manifests}:
            raise UserError(
                f"{root}: contains another catalog than {url}, or a newer version of it. Give "
                "another folder."
            )
    elif (root / "work").is_dir():
        raise UserError(f"{root}: contains an unfinished build. Give another folder.")


def _publish(root: Path, manifest: Manifest) -> None:
    import duckdb  # noqa: PLC0415

    try:
        write_database(root, manifest)
    except duckdb.Error as error:
        raise UserError(
            f"{root}: its tables cannot be read ({error}). Do not use this catalog."
        ) from error
    write_json(root / MANIFEST, manifest.content())
