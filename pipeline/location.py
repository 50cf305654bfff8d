"""Paths on this machine and fsspec URLs (`s3://...`, `hf://...`, `memory://...`), used alike."""

import os
from pathlib import Path
from typing import Annotated, Any

from pydantic import PlainSerializer, PlainValidator, WithJsonSchema
from upath import UPath

Place = Path | UPath  # a UPath of a local path is a pathlib.Path


def parse_location(value: Any) -> UPath:
    """Return a path or a URL as a UPath, which is a `pathlib.Path` for local paths.

    Storage options come from fsspec's configuration and the environment, and not from configs.

    Raises:
        ValueError: The value is neither a path nor a URL, or the URL's file system is unknown or
            not installed.
    """
    if not isinstance(value, str | Path | UPath):
        raise ValueError("expected a path or a URL")
    text = os.path.expanduser(str(value))  # the shell does not expand `--set source.path=~/notes`
    if text.startswith(("file://", "local://")):
        text = text.partition("://")[2]
    try:
        place = UPath(text)
        if not is_local(place):
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


def is_local(place: Place) -> bool:
    """Return whether a place is a path on this machine."""
    return isinstance(place, Path)


def is_file_fault(error: OSError, place: Place) -> bool:
    """Return whether an error is about the file, so that reading again cannot help.

    Such a file is recorded as a fault and skipped. A network error is raised instead, so that the
    stage can be retried: otherwise a short outage would lose whole files.
    """
    if is_local(place) or isinstance(
        error, FileNotFoundError | PermissionError | IsADirectoryError | NotADirectoryError
    ):
        return True
    # Arrow raises an OSError without a number for a damaged Parquet file.
    return type(error) is OSError and error.errno is None
