"""The files of a corpus, on this machine or in a store: their names, sizes and versions."""

import hashlib
import os
import re
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from upath import UPath

from data_catalog.errors import UserError
from pipeline.location import File, Place, StoreFile, file_below, is_local
from pipeline.source.documents import Fault, Input
from pipeline.source.unpack import COMPRESSIONS
from pipeline.source.unread import unread_notes
from pipeline.source.walk import walk

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


@dataclass(frozen=True)
class FoundFile:
    """A file below a root."""

    name: str
    """Name that opens it, see `pipeline.location.file_below`."""
    label: str
    """Name that ids and messages show. No two files of a listing share one."""
    info: Mapping[str, Any] | None = None
    """The store's description of the file, or None for a local file."""


@dataclass(frozen=True)
class Found:
    """The files at or below a path that a source reads, and the others by reason."""

    root: Place
    """Folder that names are relative to."""
    files: tuple[FoundFile, ...]
    unread: Mapping[str, Sequence[str]]
    """Labels by reason, see `pipeline.source.unread.WHY`."""
    endings: str
    """The names that were searched for."""

    def notes(self) -> list[Fault]:
        """Return a note per reason for which files are not read."""
        return unread_notes(self.unread, self.endings)


def file_labels(names: Iterable[str]) -> dict[str, str]:
    """Return the label of each name: the name itself, or an escaped form if it is not UTF-8.

    Labels are UTF-8 and unique.
    """
    taken = set(names)
    labels = {}
    for name in taken:
        label = escaped_name(name)
        if label != name and ("\\" in name or label in taken):
            digest = hashlib.blake2b(repr(name).encode(), digest_size=4).hexdigest()
            label = f"{label}~{digest}"
        labels[name] = label
    return labels


def escaped_name(name: str) -> str:
    """Return a name with bytes that are not UTF-8 as `\\xNN`."""
    try:
        return os.fsencode(name).decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # a store's name with a surrogate that is not from a local path
        return name.encode("utf-8", "backslashreplace").decode()


def describe_file(root: Place, file: FoundFile) -> Input:
    """Return the identity of a file below `root`.

    A store's description of the file saves a request.
    """
    path = file_below(root, file.name)
    if isinstance(path, Path):
        status = path.lstat() if path.is_symlink() and not path.exists() else path.stat()
        raw = None if file.label == file.name else os.fsencode(file.name).hex()
        return Input(path=file.label, raw=raw, bytes=status.st_size, modified_ns=status.st_mtime_ns)
    info = file.info
    if info is None or info.get("size") is None or not _version(info):
        info = path.fs.info(path.path)
    return Input(path=file.label, bytes=info.get("size") or 0, version=_version(info))


def _version(info: Mapping[str, Any]) -> str | None:
    version = next((info[key] for key in _VERSION_KEYS if info.get(key)), None)
    if version is None:
        return None
    # A listing and the file itself may give the same time in two formats.
    return str(version.timestamp() if isinstance(version, datetime) else version)


def find_files(
    path: Place, suffixes: Sequence[str], key: str, content: str, *, inside: bool = False
) -> Found:
    """Find the files at or below `path` whose names end with one of `suffixes`.

    A link to a file is left out if the file is found by another name.

    Args:
        path: A file, or a folder that is searched.
        suffixes: Endings of names, in lower case. Upper case is found too.
        key: Config key of the path, for error messages.
        content: Content of such files, for error messages.
        inside: True if links to folders outside of `path` are not followed.

    Raises:
        UserError: There is nothing at the path, or no such file.
    """
    endings = _shown_endings(suffixes)
    if path.is_file():
        if not path.name.lower().endswith(tuple(suffixes)):
            raise UserError(
                f"{key} {path}: the file's name does not fit. "
                f"Expected a file named {endings}, or a folder of such files."
            )
        [label] = file_labels([path.name]).values()
        return Found(path.parent, (FoundFile(path.name, label),), {}, endings)
    if not path.is_dir():
        raise UserError(
            f"{key} {path}: the path does not exist. "
            f"Give a file of {content}, or a folder of such files."
        )
    tree = walk(path, inside=inside)
    named = [name for name in tree.files if name.lower().endswith(tuple(suffixes))]
    unread = {reason: list(names) for reason, names in tree.unread.items()}
    if second := _second_links(path, named, tree.links):
        named = [name for name in named if name not in second]
        unread["second_link"] = sorted([*unread.get("second_link", ()), *second])
    if others := sorted(set(tree.files) - set(named) - second):
        dangling = [name for name in others if name in tree.links and not _exists(path, name)]
        unread["dangling_link"] = dangling
        unread["other_ending"] = [name for name in others if name not in set(dangling)]
    labels = file_labels([*tree.files, *(name for names in unread.values() for name in names)])
    shown = {reason: [labels[name] for name in names] for reason, names in unread.items() if names}
    if not named:
        seen = "; ".join(note.detail for note in unread_notes(shown, endings))
        raise UserError(
            f"{key} {path}: the folder has no file named {endings}"
            f"{f' ({seen})' if seen else ''}. Give a folder that has files of {content}."
        )
    files = tuple(FoundFile(name, labels[name], tree.files[name]) for name in named)
    return Found(path, files, shown, endings)


def _shown_endings(suffixes: Sequence[str]) -> str:
    """Return the endings as a sentence has them. Those of compressed files are summed up."""
    packed = [
        suffix
        for suffix in suffixes
        if any(packed and suffix.endswith(packed) for packed in COMPRESSIONS)
    ]
    plain = " or ".join(f"*{suffix}" for suffix in suffixes if suffix not in packed)
    compressed = ", ".join(ending for ending in COMPRESSIONS if ending)
    return f"{plain} (also with {compressed})" if plain and packed else plain or str(suffixes)


def _exists(root: Place, name: str) -> bool:
    return os.path.exists(os.path.join(str(root), name))


def _second_links(root: Place, names: Sequence[str], links: Set[str]) -> set[str]:
    """Return the links to files that another name leads to. Of several links, the first stays."""
    if links.isdisjoint(names):
        return set()
    real = {os.path.realpath(os.path.join(str(root), name)) for name in names if name not in links}
    second = set()
    for name in names:
        if name in links and _exists(root, name):
            target = os.path.realpath(os.path.join(str(root), name))
            if target in real:
                second.add(name)
            real.add(target)
    return second


def is_below(file: File | Place, folders: Sequence[Place]) -> bool:
    """Return whether `file` is one of `folders` or inside one, after links are resolved."""
    if isinstance(file, Path):
        # `Path.resolve` raises an error for a circle of links.
        real = Path(os.path.realpath(file))
        return any(
            real.is_relative_to(os.path.realpath(str(folder)))
            for folder in folders
            if is_local(folder)
        )
    assert isinstance(file, StoreFile | UPath)  # noqa: S101 (the only other kinds)
    return any(
        file.fs.protocol == folder.fs.protocol
        and f"{file.path}/".startswith(f"{folder.resolve().path.rstrip('/')}/")
        for folder in folders
        if isinstance(folder, UPath)
    )


def shard_name(file: str, suffixes: Sequence[str]) -> str:
    """Return a file's label as the name of a folder. Two files never share one."""
    stem = next((file.removesuffix(suffix) for suffix in suffixes if file.endswith(suffix)), file)
    name = re.sub(r"[^A-Za-z0-9-]+", "_", stem)[-80:]
    if name == stem and file.endswith(suffixes[0]):
        return name
    digest = hashlib.blake2b(file.encode("utf-8", "backslashreplace"), digest_size=4).hexdigest()
    return f"{name}-{digest}"


def without_reserved(path: Place, found: Found, reserved: Sequence[Place]) -> Found:
    """Return the files that do not belong to a target. The others are in `unread`.

    Args:
        path: The config's `source.path`, for messages.
        found: Files of the corpus.
        reserved: Files and folders of targets.

    Raises:
        UserError: No file is left.
    """
    held_out = [
        file for file in found.files if is_below(file_below(found.root, file.name), reserved)
    ]
    if not held_out:
        return found
    if len(held_out) == len(found.files):
        raise UserError(
            f"source.path {path}: all of its {len(held_out)} files belong to targets. "
            "Add files for the corpus, or move the targets' files elsewhere."
        )
    gone = {file.name for file in held_out}
    return replace(
        found,
        files=tuple(file for file in found.files if file.name not in gone),
        unread={**found.unread, "held_out": [file.label for file in held_out]},
    )
