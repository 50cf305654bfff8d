"""The files of a corpus, on this machine or in a store: their names, sizes and versions."""

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

# Keys under which stores describe a file's version, the best first.
_VERSION_KEYS = (
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
# Names below a root, each with the store's description of the file, or None for a local file.
Listing = Mapping[str, Mapping[str, Any] | None]


def list_files(root: Place) -> Listing:
    """List every file below `root` by its relative name, sorted.

    Links to folders are not followed. A store is listed with one request.
    """
    if isinstance(root, Path):
        return dict.fromkeys(sorted(_walk(root), key=_by_parts))
    start = root.path.rstrip("/") + "/"
    files: dict[str, dict[str, Any]] = root.fs.find(root.path, detail=True)
    return {
        name.removeprefix(start): files[name]
        for name in sorted(files, key=_by_parts)
        if name.startswith(start)
    }


def _by_parts(name: str) -> list[str]:
    return name.split("/")


def _walk(root: Path) -> Iterator[str]:
    def warn(error: OSError) -> None:
        logger.warning(
            "%s cannot be read (%s). Its files are left out.", error.filename, error.strerror
        )

    for folder, _, names in os.walk(root, onerror=warn):
        relative = Path(folder).relative_to(root)
        for name in names:
            yield (relative / name).as_posix()


def describe_file(root: Place, name: str, info: Mapping[str, Any] | None = None) -> Input:
    """Return the identity of the file `name` below `root`.

    `info` is its description in a listing. It saves a request.
    """
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
    version = next((info[key] for key in _VERSION_KEYS if info.get(key)), None)
    if version is None:
        return None
    # A listing and the file itself may give the same time in two formats.
    return str(version.timestamp() if isinstance(version, datetime) else version)


def find_files(
    path: Place, suffixes: Sequence[str], key: str, content: str
) -> tuple[Place, Listing]:
    """Find the files at or below `path` whose names end with one of `suffixes`.

    Args:
        path: A file, or a folder that is searched.
        suffixes: Endings of names, in lower case. Upper case is found too.
        key: Config key of the path, for error messages.
        content: Content of such files, for error messages.

    Returns:
        The folder that names are relative to, and the files.

    Raises:
        UserError: There is nothing at the path, or no such file.
    """
    endings = " or ".join(f"*{suffix}" for suffix in suffixes)
    if path.is_file():
        if not path.name.lower().endswith(tuple(suffixes)):
            raise UserError(
                f"{key} {path}: the file's name does not fit. "
                f"Expected a file named {endings}, or a folder of such files."
            )
        return path.parent, {path.name: None}
    if not path.is_dir():
        raise UserError(
            f"{key} {path}: the path does not exist. "
            f"Give a file of {content}, or a folder of such files."
        )
    named = {
        file: info
        for file, info in list_files(path).items()
        if file.lower().endswith(tuple(suffixes))
    }
    files = {
        file: info for file, info in named.items() if info is not None or _is_readable(path / file)
    }
    if not files:
        raise UserError(
            f"{key} {path}: the folder has no file named {endings}. "
            f"Give a folder that has files of {content}."
        )
    return path, files


def _is_readable(path: Place) -> bool:
    """Return whether `path` is a regular file or a dangling link.

    Dangling links are kept so that reading them records a fault. Pipes and devices are skipped.
    """
    return path.is_file() or (path.is_symlink() and not path.exists())


def is_below(path: Place, folders: Sequence[Place]) -> bool:
    """Return whether `path` is one of `folders` or inside one, after links are resolved."""
    resolved = _resolved(path)
    return any(
        resolved.is_relative_to(_resolved(folder))  # type: ignore[arg-type]
        for folder in folders
        if is_local(folder) == is_local(path)
    )


def _resolved(path: Place) -> Place:
    # `Path.resolve` raises an error for a circle of links.
    return Path(os.path.realpath(path)) if isinstance(path, Path) else path.resolve()


def shard_name(file: str, suffixes: Sequence[str]) -> str:
    """Return a file's name as the name of a folder. Two files never share one."""
    stem = next((file.removesuffix(suffix) for suffix in suffixes if file.endswith(suffix)), file)
    name = re.sub(r"[^A-Za-z0-9-]+", "_", stem)[-80:]
    if name == stem and file.endswith(suffixes[0]):
        return name
    digest = hashlib.blake2b((encodable(file) or "").encode(), digest_size=4).hexdigest()
    return f"{name}-{digest}"


def without_reserved(
    path: Place, files: Listing, root: Place, reserved: Sequence[Place], warn: Callable[..., None]
) -> Listing:
    """Return the files that do not belong to a target, with a warning if some do.

    Args:
        path: The config's `source.path`, for messages.
        files: Files by their names below `root`.
        root: Folder that the names are relative to.
        reserved: Files and folders of targets.
        warn: Function of a logger.

    Raises:
        UserError: No file is left.
    """
    kept = {name: info for name, info in files.items() if not is_below(root / name, reserved)}
    if len(kept) < len(files):
        warn(
            "%s: %d of %d files belong to targets and are not read",
            path,
            len(files) - len(kept),
            len(files),
        )
    if not kept:
        raise UserError(
            f"source.path {path}: all of its {len(files)} files belong to targets. "
            "Add files for the corpus, or move the targets' files elsewhere."
        )
    return kept
