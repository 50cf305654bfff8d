"""The files of a corpus, on this machine or elsewhere: which there are, how large, and how to notice that one changed."""

import hashlib
import logging
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from data_catalog.errors import UserError
from pipeline.location import Place, is_local
from pipeline.source.documents import Input, encodable

logger = logging.getLogger(__name__)

_VERSIONS = (
    "ETag",
    "etag",
    "md5Hash",
    "checksum",
    "sha256",
    "blob_id",
    "mtime",
    "LastModified",
    "last_modified",
    "updated",
    "created",
)
Listed = Mapping[
    str, Mapping[str, Any] | None
]  # name below the root: what the store says of it; None: ask the file itself


def list_files(root: Place) -> Listed:
    """Every file below `root`, by its name from there, sorted; links to folders are not followed. One request a folder or store."""
    if isinstance(root, Path):
        return dict.fromkeys(sorted(_walk(root), key=_by_parts))
    start = root.path.rstrip("/") + "/"
    found: dict[str, dict[str, Any]] = root.fs.find(root.path, detail=True)
    return {
        name.removeprefix(start): found[name]
        for name in sorted(found, key=_by_parts)
        if name.startswith(start)
    }


def _by_parts(name: str) -> list[str]:
    return name.split("/")


def _walk(root: Path) -> Iterator[str]:
    def warn(error: OSError) -> None:
        logger.warning(
            "%s cannot be read (%s): its files are left out", error.filename, error.strerror
        )

    for folder, _, names in os.walk(root, onerror=warn):
        place = Path(folder).relative_to(root)
        for name in names:
            yield (place / name).as_posix()


def describe(root: Place, name: str, info: Mapping[str, Any] | None = None) -> Input:
    """The identity of the file `name` below `root`; `info` is what a listing said of it, to save a request."""
    path = root / name
    if isinstance(path, Path):
        status = path.lstat() if path.is_symlink() and not path.exists() else path.stat()
        return Input(
            path=encodable(name) or name, bytes=status.st_size, modified_ns=status.st_mtime_ns
        )
    if info is None or info.get("size") is None or not _version(info):
        info = path.fs.info(path.path)
    return Input(path=name, bytes=info.get("size") or 0, version=_version(info))


def _version(info: Mapping[str, Any]) -> str | None:
    found = next((info[key] for key in _VERSIONS if info.get(key)), None)
    # A listing and the file itself may say one time in two ways.
    return (
        str(found.timestamp() if isinstance(found, datetime) else found)
        if found is not None
        else None
    )


def find_files(path: Place, suffixes: Sequence[str], name: str, what: str) -> tuple[Place, Listed]:
    """The folder that names are told from, and the files at or below `path` that end with one of `suffixes`.

    `name` is the config field and `what` the kind of file, for errors.

    Raises:
        UserError: nothing is at the path, or no file of that kind.
    """
    endings = " or ".join(f"*{suffix}" for suffix in suffixes)
    if path.is_file():
        if not path.name.lower().endswith(tuple(suffixes)):
            raise UserError(f"{name} {path}: expected a file named {endings}, or a folder of them")
        return path.parent, {path.name: None}
    if not path.is_dir():
        raise UserError(f"{name} {path}: does not exist; give a file of {what} or a folder of them")
    named = {
        file: info
        for file, info in list_files(path).items()
        if file.lower().endswith(tuple(suffixes))
    }
    files = {
        file: info for file, info in named.items() if info is not None or _is_file(path / file)
    }
    if not files:
        raise UserError(f"{name} {path}: holds no file named {endings}")
    return path, files


def _is_file(path: Place) -> bool:
    """Or a link that leads nowhere, which the stage that reads it records; pipes and devices are neither."""
    return path.is_file() or (path.is_symlink() and not path.exists())


def is_below(path: Place, folders: Sequence[Place]) -> bool:
    """Whether `path` is one of `folders` or inside one; both resolved, so that links do not hide it."""
    same = [folder for folder in folders if is_local(folder) == is_local(path)]
    place = _resolved(path)
    return any(place.is_relative_to(_resolved(folder)) for folder in same)  # type: ignore[arg-type]


def _resolved(path: Place) -> Place:
    return (
        Path(os.path.realpath(path)) if isinstance(path, Path) else path.resolve()
    )  # pathlib's own refuses a circle of links


def shard_name(file: str, suffixes: Sequence[str]) -> str:
    """A file's name as the name of a folder; two files never share one, whatever characters they have."""
    stem = next((file.removesuffix(suffix) for suffix in suffixes if file.endswith(suffix)), file)
    name = re.sub(r"[^A-Za-z0-9-]+", "_", stem)[-80:]
    plain = name == stem and file.endswith(suffixes[0])
    return (
        name
        if plain
        else name
        + "-"
        + hashlib.blake2b((encodable(file) or "").encode(), digest_size=4).hexdigest()
    )


def left_for_corpus(
    path: Place, files: Listed, root: Place, held_out: Sequence[Place], warn: Callable[..., None]
) -> Listed:
    """The files that no target holds, with a warning if that are fewer.

    Raises:
        UserError: none is left.
    """
    kept = {name: info for name, info in files.items() if not is_below(root / name, held_out)}
    if len(kept) < len(files):
        warn(
            "%s: %d of %d files belong to targets and are not read",
            path,
            len(files) - len(kept),
            len(files),
        )
    if not kept:
        raise UserError(
            f"source.path {path}: all its {len(files)} files belong to targets; nothing is left for the corpus"
        )
    return kept
