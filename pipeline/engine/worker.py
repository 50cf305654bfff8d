"""Functions that run in the processes of a cluster: the check of a worker, and the call of a part.

A worker is another process on another machine. It needs the same folder and the same software as
the command. `find_problem` compares both, once per process and before anything is written.
"""

import hashlib
import logging
import os
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from data_catalog.errors import UserError
from data_catalog.place import Folder, Place
from pipeline.config import Embed
from pipeline.parts import Part

# Packages whose version can change a part. The first that is installed of each row counts.
_PACKAGES = (
    ("numpy",),
    ("pyarrow",),
    ("duckdb",),
    ("pydantic",),
    ("scipy",),
    ("scikit-learn",),
    ("torch",),
    ("faiss-cpu", "faiss-gpu"),
    ("flash-kmeans",),
    ("tokenizers",),
    ("transformers",),
    ("sentence-transformers",),
    ("datasets",),
    ("onnxruntime",),
    ("openvino",),
)
MAXIMUM_ATTEMPTS = 3  # of a part that raises an error
_OWN_PACKAGES = ("data_catalog", "pipeline")


@dataclass(frozen=True)
class Expected:
    """Facts about the machine of the command, which workers compare with their own."""

    token_file: Folder  # in the work folder of the catalog
    token: str
    software: Mapping[str, str]  # see `installed_software`
    paths: Mapping[str, Path]  # existing files and folders of the config, by their key

    def __hash__(self) -> int:
        return hash(self.token)


@dataclass(frozen=True)
class Called:
    """The result of a part's function, and the warnings that it logged."""

    part: Part
    warnings: list[str]


def installed_software() -> dict[str, str]:
    """Return the versions of Python, of clustermix's code and of the packages that it uses.

    The part of a version after `+`, such as `cpu` or `cu130`, is left out: a GPU changes the
    precision of a vector, which the encoder's identity tells.
    """
    versions = {
        "Python": ".".join(map(str, sys.version_info[:2])),
        "clustermix": f"code {_code_digest()}",
    }
    for names in _PACKAGES:
        for name in names:
            try:
                versions[names[0]] = metadata.version(name).partition("+")[0]
                break
            except metadata.PackageNotFoundError:
                continue
    return versions


def find_problem(expected: Expected) -> str | None:
    """Return why this process cannot work for the command, or None."""
    return (
        _folder_problem(expected)
        or _software_problem(expected.software)
        or next(
            (
                f"{key} {path} does not exist there. Mount it at the same path on every machine."
                for key, path in expected.paths.items()
                if not path.exists()
            ),
            None,
        )
    )


def find_encoder_problem(config: Embed, comparable: Mapping[str, Any]) -> str | None:
    """Return why this process cannot embed as the command expects, or None.

    Args:
        config: The encoder.
        comparable: `Identity.comparable` on the machine of the command.
    """
    from pipeline.embed.identity import identify  # noqa: PLC0415 - needless for a part

    try:
        found = identify(config).comparable
    except UserError as error:
        return str(error)
    if found != comparable:
        return (
            f"embed.model {config.model} is {found} there, but {dict(comparable)} here. "
            "Install the same model on every machine."
        )
    return None


def call_part(
    expected: Expected, function: Callable[..., Part], name: str, *arguments: Any
) -> Called:
    """Call the function of a part in a process that has been checked.

    Raises:
        UserError: The process cannot work for the command.
    """
    if problem := _problem(expected):
        raise UserError(f"{name}: {problem}")
    return call_collecting(function, *arguments)


def call_collecting(function: Callable[..., Part], *arguments: Any) -> Called:
    """Call the function of a part, in a process that makes one part at a time."""
    warnings = _collect_warnings()
    part = function(*arguments)
    return Called(part, warnings.take())


def call_part_without_gpu(
    expected: Expected, function: Callable[..., Part], name: str, *arguments: Any
) -> Called:
    """Call the function of a part in a process that must not use a GPU, see `call_part`.

    Every process of a machine would otherwise load its models on the same card.
    """
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    return call_part(expected, function, name, *arguments)


@cache
def _problem(expected: Expected) -> str | None:
    return find_problem(expected)


def _store_problem(file: Place, token: str) -> str | None:
    try:
        found = file.read()
    except UserError as error:
        return f"{error} Set the store's address and keys on every machine."
    if found != token.encode():
        return f"{file.parent} is another store there. Set the store's address on every machine."
    return None


def _folder_problem(expected: Expected) -> str | None:
    if isinstance(expected.token_file, Place):
        return _store_problem(expected.token_file, expected.token)
    folder = expected.token_file.parent
    remedy = "Mount the catalog's folder at the same path on every machine, readable and writable."
    try:
        token = expected.token_file.read_text(encoding="utf-8")
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        return f"{error.filename or folder} cannot be used there ({error.strerror}). {remedy}"
    if token != expected.token:
        return f"{folder} is another folder there. {remedy}"
    return None


def _software_problem(expected: Mapping[str, str]) -> str | None:
    found = installed_software()
    differing = [
        f"{name} {found.get(name, 'is missing')} there, {expected.get(name, 'missing')} here"
        for name in sorted({*found, *expected})
        if found.get(name) != expected.get(name)
    ]
    if not differing:
        return None
    return f"{', '.join(differing)}. Install the same versions on every machine."


@cache
def _code_digest() -> str:
    """Return a digest of the source files that make parts."""
    digest = hashlib.sha256()
    for package in _OWN_PACKAGES:
        spec = find_spec(package)
        for folder in spec.submodule_search_locations or () if spec else ():
            for file in sorted(Path(folder).rglob("*.py")):
                digest.update(file.relative_to(folder).as_posix().encode() + b"\0")
                digest.update(file.read_bytes())
    return digest.hexdigest()[:8]


class _Warnings(logging.Handler):
    """The warnings of this process that no part has returned yet."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self._messages.append(record.getMessage())

    def take(self) -> list[str]:
        messages, self._messages = self._messages, []
        return messages


@cache
def _collect_warnings() -> _Warnings:
    handler = _Warnings()
    logging.getLogger().addHandler(handler)
    return handler
