"""Fingerprints, atomic writes, and the check that a catalog's files are what its manifest says."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from data_catalog.errors import UserError
from data_catalog.suggest import suggestion

FORMAT = 2
MANIFEST = "catalog.json"


def fingerprint(*things: Any) -> str:
    """SHA-256 of the canonical JSON of `things` (models, paths as text, plain values)."""
    text = json.dumps(things, sort_keys=True, separators=(",", ":"), default=_plain)
    return hashlib.sha256(text.encode()).hexdigest()


def _plain(thing: Any) -> Any:
    if isinstance(thing, BaseModel):
        return thing.model_dump(mode="json")
    if isinstance(thing, Path):
        return str(thing)
    raise TypeError(f"a fingerprint is made of plain values, found {type(thing).__name__}")


def sha256_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary sibling of `path` (file or folder to be made); rename it over `path` if the block succeeds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    _remove(temporary)
    try:
        yield temporary
        if temporary.is_dir():
            _remove(
                path
            )  # a folder cannot be renamed over a full one; its manifest is inside, so this gap reads as "not done"
        os.replace(temporary, path)
    finally:
        _remove(temporary)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def write_json(path: Path, thing: Any) -> None:
    with replacing(path) as temporary:
        temporary.write_text(
            json.dumps(thing, indent=2, sort_keys=True, default=_plain) + "\n", encoding="utf-8"
        )


def describe_files(root: Path, paths: list[Path]) -> dict[str, dict[str, Any]]:
    """Size and SHA-256 of each of `paths`, keyed by their place below `root`."""
    return {
        path.relative_to(root).as_posix(): {
            "bytes": path.stat().st_size,
            "sha256": sha256_file(path),
        }
        for path in sorted(paths)
    }


def read_manifest(root: Path, version: int | None = None) -> dict[str, Any]:
    """The manifest of the catalog at `root`: the newest, or that of an earlier version.

    Raises:
        UserError: there is no finished catalog at `root`, it has no such version, or it was written in another format.
    """
    newest = _read(root / MANIFEST, root)
    if version is None or version == newest["version"]:
        return newest
    if not 1 <= version < newest["version"]:
        raise UserError(
            f"{root}: has no version {version}; there are versions 1 to {newest['version']}"
        )
    return _read(root / "versions" / f"{version:04d}" / MANIFEST, root)


def _read(path: Path, root: Path) -> dict[str, Any]:
    if not path.is_file():
        raise UserError(
            f"{root}: no catalog here ({path.relative_to(root)} is missing); {_others(root)}"
        )
    try:
        manifest: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path}: not valid JSON ({error}); build the catalog again") from error
    if manifest.get("format") != FORMAT:
        raise UserError(
            f"{path}: format {manifest.get('format')!r}, this version of clustermix reads format {FORMAT}; build the catalog again"
        )
    return manifest


def _others(root: Path) -> str:
    """What to do where no catalog is: the ones beside it, if there are any."""
    try:
        beside = sorted(
            path.parent.name for path in root.parent.glob(f"*/{MANIFEST}") if path.parent != root
        )
    except OSError:  # a folder that may not be listed
        beside = []
    return (
        suggestion(root.name, beside, f"catalogs in {root.parent}")
        if beside
        else "build one with `clustermix build CONFIG.toml`"
    )


def is_inside(root: Path, name: str) -> bool:
    """Whether the file `name` of a manifest lies in the catalog, links followed."""
    return (root / name).resolve().is_relative_to(root.resolve())


def damaged(
    root: Path, manifest: Mapping[str, Any], on_progress: Callable[[int, int], None] | None = None
) -> dict[str, str]:
    """What is wrong with each file that is missing or differs from its manifest; empty if all is well.

    Args:
        on_progress: called after each file with the bytes looked at, and those of all files.
    """
    faults = {}
    looked, total = 0, sum(file["bytes"] for file in manifest["files"].values())
    for name, expected in manifest["files"].items():
        path = root / name
        if not is_inside(root, name):
            faults[name] = "lies outside the catalog"
        elif not path.is_file():
            faults[name] = "missing"
        elif path.stat().st_size != expected["bytes"]:
            faults[name] = f"{path.stat().st_size} bytes, expected {expected['bytes']}"
        elif sha256_file(path) != expected["sha256"]:
            faults[name] = "checksum differs"
        looked += expected["bytes"]
        if on_progress:
            on_progress(looked, total)
    return faults
