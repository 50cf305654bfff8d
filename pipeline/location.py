"""Where data are read from: a path on this machine or an fsspec URL (`s3://…`, `hf://…`, `memory://…`), used alike."""

import os
from pathlib import Path
from typing import Annotated, Any

from pydantic import PlainSerializer, PlainValidator, WithJsonSchema
from upath import UPath

Place = Path | UPath  # what functions take: a UPath of a local path is a pathlib.Path


def parse_location(value: Any) -> UPath:
    """A path, a string or a URL as a UPath. Storage options come from fsspec's own configuration and the environment, not from recipes.

    Raises:
        ValueError: it is neither, or the URL's file system is unknown or not installed.
    """
    if not isinstance(value, str | Path | UPath):
        raise ValueError("expected a path or a URL")
    text = os.path.expanduser(str(value))  # a shell leaves `--set source.path=~/notes` as it is
    if text.startswith(("file://", "local://")):
        text = text.partition("://")[2]
    try:
        place = UPath(text)
        if not is_local(place):
            _ = place.fs  # says what to install
    except ImportError as error:
        raise ValueError(f"{error}") from error
    return place


Location = Annotated[
    Place,
    PlainValidator(parse_location),
    PlainSerializer(
        str, return_type=str, when_used="json"
    ),  # one string, so that fingerprints and written configs are plain
    WithJsonSchema({"type": "string"}),
]


def is_local(place: Place) -> bool:
    return isinstance(place, Path)


def is_file_fault(error: OSError, place: Place) -> bool:
    """Whether reading again could not help: then it is the file's fault, to be recorded and passed over.

    A network that fails is not: that error must reach whoever runs the stage, who tries again. Else a bad minute would lose whole files.
    """
    if is_local(place) or isinstance(
        error, FileNotFoundError | PermissionError | IsADirectoryError | NotADirectoryError
    ):
        return True
    return (
        type(error) is OSError and error.errno is None
    )  # how Arrow says that a Parquet file is damaged
