"""A catalog to and from an object store. Work is done in a local folder; a store is how catalogs travel. `catalog.json` is put last."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from data_catalog.errors import UserError
from data_catalog.format.layout import MANIFEST, OPTIONAL
from data_catalog.format.lock import sole_holder
from data_catalog.format.manifest import (
    FileIdentity,
    Manifest,
    is_inside,
    parse_manifest,
    read_manifest,
    replacing,
    sha256_file,
    version_manifest,
    write_json,
)
from data_catalog.query.database import write_database
from data_catalog.transfer.remote import Place, open_place

UNDER_WAY = "catalog.json.part"  # the manifest of what is being put there: only then are files there of this catalog

OnFile = Callable[[int, int, int], None]  # files done, files in all, bytes copied so far


@dataclass(frozen=True)
class Copied:
    """What a transfer did."""

    place: str  # where the catalog now is
    version: int
    files: int  # of the catalog there, manifests aside
    copied: int  # of them, now
    bytes: int  # of the copied
    left_out: tuple[str, ...] = ()  # parts of the catalog that the copy lacks


def export_catalog(
    root: Path,
    url: str,
    *,
    version: int | None = None,
    workers: int = 8,
    on_file: OnFile | None = None,
) -> Copied:
    """Copy the catalog at `root` to `url`. Interrupted at any point, the same call goes on; what is there already is not sent again.

    Every file's checksum is compared with the manifest before it is sent, and every size after it. Until `catalog.json` is put, last,
    a reader finds no catalog there, or the earlier version.

    Args:
        version: with the ones before it; None: all.
        workers: files at once.

    Raises:
        UserError: there is no such catalog or version, a file of it is missing or damaged, something else is at `url`, or `url` cannot be
            written.
    """
    manifests = _local_manifests(root, version)
    newest = manifests[-1]
    files = {name: file for manifest in manifests for name, file in manifest.files.items()}
    if newest.left_out:
        raise UserError(
            f"{root}: was fetched without {', '.join(newest.left_out)}; fetch the rest of it first, then export it"
        )
    for name, file in files.items():
        if not is_inside(root, name):
            raise UserError(f"{root}: {name} lies outside the catalog; do not use this catalog")
        if not (root / name).is_file() or (root / name).stat().st_size != file.bytes:
            raise UserError(
                f"{root}: {name} is missing or has another size; `clustermix verify {root}` tells what is damaged"
            )
    place = open_place(url)
    with place.reaching():
        there = place.sizes()
        _refuse_others(place, there, manifests)
        if MANIFEST not in there:
            place.write(UNDER_WAY, _text(newest))
        wanted = {name: file for name, file in files.items() if there.get(name) != file.bytes}

        def put(name: str) -> int:
            if sha256_file(root / name) != files[name].sha256:
                raise UserError(
                    f"{root}: {name} is damaged: its checksum differs from the manifest's; nothing of it was sent"
                )
            place.put(root / name, name)
            return files[name].bytes

        _each(put, wanted, len(files), workers, on_file)
        there = place.sizes()
        if lost := [name for name, file in files.items() if there.get(name) != file.bytes]:
            raise UserError(
                f"{url}: {lost[0]} has {there.get(lost[0], 0)} bytes there, expected {files[lost[0]].bytes}; run it again"
            )
        for manifest in manifests:
            place.write(version_manifest(manifest.version), _text(manifest))
        if place.folder:
            _publish(place.folder, newest)
        else:
            place.write(MANIFEST, _text(newest))  # an object is there whole or not at all
        if UNDER_WAY in there:
            place.remove(UNDER_WAY)
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
    on_file: OnFile | None = None,
) -> Copied:
    """Bring the catalog at `url` into the folder `root`. Interrupted at any point, the same call goes on.

    Each file's size and checksum are compared with the manifest before it is renamed into place; `catalog.json` is written last, and
    `catalog.duckdb` is made anew. What comes is not trusted: a manifest that names files outside of a catalog's own folders is refused.

    Args:
        version: with the ones before it; None: all.
        without: parts to leave out, of OPTIONAL. The trainer needs none of `documents`, `signals` and `verdicts`. Calling it again
            without this brings the rest.
        workers: files at once.

    Raises:
        UserError: there is no finished catalog or no such version at `url`, its manifest is not one, a file is not what it says, `root`
            holds something else, or the disk is too small.
    """
    if unknown := sorted(set(without) - set(OPTIONAL)):
        raise UserError(
            f"without {', '.join(unknown)}: a catalog is used without {', '.join(OPTIONAL)}, nothing else"
        )
    place = open_place(url)
    with place.reaching():
        manifests = _remote_manifests(place, version)
    newest = manifests[-1]
    with (
        sole_holder(root, f"{root}: another process is fetching a catalog into it; wait for it"),
        place.reaching(),
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
                raise UserError(f"{root}: {name} is a link to elsewhere there; give another folder")
        wanted = {name: file for name, file in files.items() if not _is_here(root / name, file)}
        size = sum(file.bytes for file in wanted.values())
        if size > (free := shutil.disk_usage(root).free):
            raise UserError(
                f"{root}: {size / 1e9:,.1f} GB are to come, {free / 1e9:,.1f} GB are free; give another folder or make room"
            )

        def get(name: str) -> int:
            with replacing(root / name) as temporary:
                place.get(name, temporary)
                if not _is_here(temporary, files[name]):
                    raise UserError(
                        f"{url}: {name} is not what the manifest says it is; export the catalog again"
                    )
            return files[name].bytes

        _each(get, wanted, len(files), workers, on_file)
    for manifest in manifests:
        write_json(root / version_manifest(manifest.version), _without(manifest, without).content())
    here = _without(newest, without)
    _publish(root, here)
    return Copied(str(root), newest.version, len(files), len(wanted), size, here.left_out)


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
    on_file: OnFile | None,
) -> None:
    """Call `copy` for each file, the largest first; the first failure stops those that have not begun."""
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
    url, newest = place.url, _read(place, MANIFEST)
    if newest is None:
        raise UserError(
            f"{url}: no catalog there ({MANIFEST} is missing: it is put last); export one with `clustermix export catalog`"
        )
    last = newest.version if version is None else version
    if not 1 <= last <= newest.version:
        raise UserError(f"{url}: has no version {last}; there are versions 1 to {newest.version}")
    found = []
    for number in range(1, last + 1):
        manifest = _read(place, version_manifest(number))
        if manifest is None or manifest.version != number:
            raise UserError(
                f"{url}: {version_manifest(number)} is missing or not of that version; export the catalog again"
            )
        found.append(manifest)
    return found


def _read(place: Place, name: str) -> Manifest | None:
    text = place.read(name)
    return None if text is None else parse_manifest(text, f"{place.url}/{name}")


def _refuse_others(place: Place, there: Collection[str], manifests: list[Manifest]) -> None:
    """A place where something else is, or a newer version of this, is left alone."""
    newest, mine = manifests[-1], {manifest.fingerprint for manifest in manifests}
    found = next((_read(place, name) for name in (MANIFEST, UNDER_WAY) if name in there), None)
    if found is None and any(name in there for name in newest.files):
        raise UserError(
            f"{place.url}: files of a catalog are there, and nothing says of which; remove them or give another place"
        )
    if found is not None and found.fingerprint not in mine:
        raise UserError(
            f"{place.url}: another catalog is there, or another version of this one ({found.version}); give another place"
        )


def _refuse_other_folder(root: Path, url: str, manifests: list[Manifest]) -> None:
    if (root / MANIFEST).is_file():
        found = read_manifest(root)
        if found.fingerprint not in {manifest.fingerprint for manifest in manifests}:
            raise UserError(
                f"{root}: another catalog, or a newer version, is in this folder than at {url}; give another folder"
            )
    elif (root / "work").is_dir():
        raise UserError(f"{root}: a build is unfinished in this folder; give another folder")


def _publish(root: Path, manifest: Manifest) -> None:
    import duckdb  # noqa: PLC0415

    try:
        write_database(root, manifest)
    except duckdb.Error as error:
        raise UserError(
            f"{root}: its tables cannot be read ({error}); do not use this catalog"
        ) from error
    write_json(root / MANIFEST, manifest.content())
