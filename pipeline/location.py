"""Paths on this machine and fsspec URLs (`s3://...`, `hf://...`, `memory://...`), used alike."""

import errno
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol, runtime_checkable

from fsspec import AbstractFileSystem
from pydantic import PlainSerializer, PlainValidator, WithJsonSchema
from upath import UPath

Place = Path | UPath  # a local path is a pathlib.Path, whose names are never parsed as URLs
# `a::b` and `std:x` are names of local files. A chained URL has `://` too (`zip::s3://...`).
_URL = re.compile(r"(?:[A-Za-z][A-Za-z0-9+.-]*::)*[A-Za-z][A-Za-z0-9+.-]+://")
# Errors of this process or machine, whatever file it opens.
_PROCESS_ERRORS = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)


@runtime_checkable
class File(Protocol):
    """A file that can be read, wherever it is."""

    @property
    def name(self) -> str: ...

    def open(self, mode: Literal["rb"], /) -> Any: ...


@dataclass(frozen=True)
class StoreFile:
    """A file of a store, by the path that the store itself uses for it.

    Joining names to a `UPath` parses them, so that `std::vector.txt` would be a chained URL.
    """

    fs: AbstractFileSystem
    path: str

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2]

    def open(self, mode: Literal["rb"] = "rb", /) -> Any:
        return self.fs.open(self.path, mode)

    def __str__(self) -> str:
        return str(self.fs.unstrip_protocol(self.path))


def file_below(root: Place, name: str) -> Path | StoreFile:
    """Return the file `name` below `root`, as a listing of `root` names it.

    The name is taken as it is. It is neither parsed as a URL nor decoded.
    """
    if isinstance(root, Path):
        return Path(root, name)
    return StoreFile(root.fs, f"{root.path.rstrip('/')}/{name}")


def folder_names(root: Place) -> list[str]:
    """Return the names of the folders in `root`, links to folders included, sorted."""
    if isinstance(root, Path):
        return sorted(entry.name for entry in os.scandir(root) if entry.is_dir())
    entries = root.fs.ls(root.path, detail=True)
    return sorted(
        entry["name"].rstrip("/").rpartition("/")[2]
        for entry in entries
        if entry["type"] == "directory"
    )


def parse_location(value: Any) -> Place:
    """Return a path as a `pathlib.Path`, and a URL as a UPath.

    Only a text that starts with `scheme://` is a URL. Storage options come from fsspec's
    configuration and the environment, and not from configs.

    Raises:
        ValueError: The value is neither a path nor a URL, or the URL's file system is unknown or
            not installed.
    """
    if isinstance(value, Path):
        return Path(os.fspath(value))
    if not isinstance(value, str | Path | UPath):
        raise ValueError("expected a path or a URL")
    text = os.path.expanduser(str(value))  # the shell does not expand `--set source.path=~/notes`
    if text.startswith(("file://", "local://")):
        text = text.partition("://")[2]
    if not _URL.match(text):
        return Path(text)
    try:
        place = UPath(text)
        _ = place.fs  # raises an error that names the missing package
    except ImportError as error:
        raise ValueError(f"{error}") from error
    return place


Location = Annotated[
    Place,
    PlainValidator(parse_location),
    # One string, so that fingerprints and written configs are plain.
    PlainSerializer(str, return_type=str, when_used="json"),
    WithJsonSchema({"type": "string"}),
]


def is_local(place: object) -> bool:
    """Return whether a place is a path on this machine."""
    return isinstance(place, Path)


def is_file_fault(error: OSError, file: object) -> bool:
    """Return whether an error is about the file, so that reading again cannot help.

    Such a file is recorded as a fault and skipped. An error of the network, or of this process and
    not of the file, is raised instead: otherwise a short outage or a limit on open files would lose
    whole files, and the finished part would never be made again.
    """
    if error.errno in _PROCESS_ERRORS:
        return False
    if is_local(file) or isinstance(
        error, FileNotFoundError | PermissionError | IsADirectoryError | NotADirectoryError
    ):
        return True
    # Arrow raises an OSError without a number for a damaged Parquet file.
    return type(error) is OSError and error.errno is None
