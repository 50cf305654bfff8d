"""The manifest of a catalog, fingerprints, atomic writes, and the check of files by checksum."""

import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, field_validator

from data_catalog.errors import UserError, suggestion
from data_catalog.folders import check_utf8_path
from data_catalog.format.damage import DamagedFileError, first_line, unreadable
from data_catalog.format.encoder_identity import Identity
from data_catalog.format.layout import FOLDERS, LEAKAGE_FILE, MANIFEST, Levels
from data_catalog.format.records import Record, parse_record, read_record
from data_catalog.place import Folder, Place
from data_catalog.temporary import replacing

FORMAT = 2
MAXIMUM_LEAVES = 2**24  # of a tree that a manifest describes; arrays have a number per leaf
MAXIMUM_READERS = 8  # files that are hashed at the same time
NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]*$"  # of a target
CATALOG_REMEDY = (
    f"This version of clustermix reads catalogs of format {FORMAT}. "
    "Build, export or fetch the catalog again."
)
_BUILD_ONE = "Build one with `clustermix build CONFIG.toml`."
_PLAIN = re.compile(r"[^\x00-\x1f\x7f\\:]+")


def fingerprint(*things: Any) -> str:
    """SHA-256 of the canonical JSON of `things` (models, paths as text, plain values)."""
    text = json.dumps(things, sort_keys=True, separators=(",", ":"), default=_plain)
    return hashlib.sha256(text.encode()).hexdigest()


def _plain(thing: Any) -> Any:
    if isinstance(thing, BaseModel):
        return thing.model_dump(mode="json")
    if isinstance(thing, Path | Place):
        return str(thing)
    raise TypeError(f"a fingerprint is made of plain values, found {type(thing).__name__}")


def sha256_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def json_text(thing: Any) -> bytes:
    """Return a thing as JSON, with its keys in order."""
    return (json.dumps(thing, indent=2, sort_keys=True, default=_plain) + "\n").encode()


def write_json(path: Path, thing: Any) -> None:
    with replacing(path) as temporary:
        temporary.write_bytes(json_text(thing))


class FileIdentity(Record):
    """Size and checksum of one file of a catalog."""

    bytes: Annotated[int, Field(ge=0)]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class TokenizerIdentity(Record):
    """The tokenizer that made a catalog's tokens."""

    vocabulary: Annotated[int, Field(gt=0)]
    """Number of token ids. Every id is smaller."""
    end_of_text: Annotated[int, Field(ge=0)]
    """Id of the token that closes each document."""
    sha256: str
    """Checksum of `tokenizer.json`."""


class AdditionRecord(Record):
    """One addition of documents or targets to a finished catalog."""

    fingerprint: str
    config: dict[str, Any]


class Manifest(Record):
    """The contents of `catalog.json`: what one version of a catalog holds and what made it."""

    format: Literal[2]
    version: Annotated[int, Field(ge=1, le=9999)]
    fingerprint: Annotated[str, Field(min_length=1)]
    """Digest of the data: equal catalogs have equal fingerprints."""
    granularities: tuple[Annotated[int, Field(gt=0, le=MAXIMUM_LEAVES)], ...]
    """Domains per level of the tree, coarse to fine. Each divides the next."""
    documents: Annotated[int, Field(ge=0)]
    """Number of stored documents, held-out ones included."""
    tokens: Annotated[int, Field(ge=0)]
    """Number of stored tokens, held-out ones included."""
    encoder: Identity
    tokenizer: TokenizerIdentity
    targets: tuple[Annotated[str, Field(pattern=NAME)], ...]
    files: dict[str, FileIdentity]
    """Every file but manifests and `catalog.duckdb`, keyed by its path below the catalog."""
    config: dict[str, Any]
    """The build's config, as `pipeline.config.Build` reads it."""
    built_from: str
    """Digest of the stages' fingerprints in version 1."""
    parent: str | None
    """Fingerprint of the version before this one."""
    additions: tuple[AdditionRecord, ...]
    warnings: tuple[str, ...]
    stage_seconds: dict[str, Annotated[float, Field(ge=0)]]
    """Seconds per stage, summed over its parts."""
    left_out: tuple[Literal["documents", "tokens", "signals", "verdicts"], ...] = ()
    """Folders that this copy of the catalog was fetched without."""

    @field_validator("granularities")
    @classmethod
    def _nested(cls, granularities: tuple[int, ...]) -> tuple[int, ...]:
        try:
            Levels(granularities)
        except UserError as error:
            raise ValueError(str(error)) from error
        return granularities

    @field_validator("files")
    @classmethod
    def _in_own_folders(cls, files: dict[str, FileIdentity]) -> dict[str, FileIdentity]:
        for name in files:
            path = PurePosixPath(name)
            inside = len(path.parts) > 1 and path.parts[0] in FOLDERS and str(path) == name
            if not inside or ".." in path.parts or not _PLAIN.fullmatch(name):
                raise ValueError(f"{name!r} lies outside the catalog. Do not use this catalog")
            if path.name == MANIFEST:
                raise ValueError(f"{name!r} is a manifest, which cannot list itself")
        return files

    @property
    def levels(self) -> Levels:
        """The levels of the catalog's tree."""
        return Levels(self.granularities)

    def content(self) -> dict[str, Any]:
        """Return the manifest as plain JSON values, as `catalog.json` holds them."""
        return self.model_dump(mode="json", exclude=set() if self.left_out else {"left_out"})


_IDENTIFYING_KEYS = (
    *("format", "version", "granularities", "encoder", "tokenizer", "targets", "files"),
)


def content_fingerprint(content: Mapping[str, Any]) -> str:
    """Return the fingerprint of a catalog from the keys of its manifest that identify its data.

    The table `leakage` does not identify the data, from which it is made. So a catalog that is
    built again to get one keeps its fingerprint, and its runs resume. The manifest of a copy that
    was fetched without some files has the fingerprint of the whole catalog, which cannot be
    computed from it.
    """
    data = {name: file for name, file in content["files"].items() if not _is_report(name)}
    return fingerprint({**{key: content[key] for key in _IDENTIFYING_KEYS}, "files": data})


def _is_report(name: str) -> bool:
    return name.startswith("versions/") and name.endswith(f"/{LEAKAGE_FILE}")


def identify_file(path: Path) -> FileIdentity:
    """Return size and checksum of a file."""
    return FileIdentity(bytes=path.stat().st_size, sha256=sha256_file(path))


def describe_files(root: Path, paths: list[Path]) -> dict[str, FileIdentity]:
    """Return size and checksum of each of `paths`, keyed by the path below `root`."""
    return {path.relative_to(root).as_posix(): identify_file(path) for path in sorted(paths)}


def parse_manifest(text: bytes, place: str) -> Manifest:
    """Validate the text of a `catalog.json`.

    Raises:
        UserError: A key is missing, unknown, of another type or out of range, or the catalog has
            another format. The message names `place` and the key.
    """
    return parse_record(Manifest, text, place, CATALOG_REMEDY)


def read_manifest(root: Folder, version: int | None = None) -> Manifest:
    """Read the manifest of the catalog at `root`, of its newest version if `version` is None.

    Raises:
        UserError: There is no finished catalog at `root`, it has no such version, its manifest
            is damaged or of another format, or its path is not UTF-8.
    """
    if isinstance(root, Path):
        check_utf8_path(root, "catalog")
    return select_version(root, version, partial(_read, root))


def read_exported_manifest(root: Place, version: int | None = None) -> Manifest:
    """Read the manifest of a catalog that somebody has to export first, as `read_manifest` does.

    Raises:
        UserError: See `read_manifest`. The message names the command that exports.
    """

    def read(name: str) -> Manifest:
        if (text := (root / name).read()) is None:
            raise UserError(
                f"{root}: no finished catalog found ({name} is missing). Export one with "
                "`clustermix export catalog`."
            )
        return parse_manifest(text, f"{root}/{name}")

    return select_version(root, version, read)


def select_version(root: Folder, version: int | None, read: Callable[[str], Manifest]) -> Manifest:
    """Return the manifest of a version, or the newest if `version` is None.

    Args:
        root: Folder of the catalog.
        version: Number of the version.
        read: Reads a manifest by its path below the catalog.

    Raises:
        UserError: The catalog has no such version.
    """
    newest = read(MANIFEST)
    if version is None or version == newest.version:
        return newest
    if not 1 <= version < newest.version:
        raise UserError(
            f"{root}: version {version} does not exist. "
            f"The catalog has versions 1 to {newest.version}."
        )
    return read(version_manifest(version))


def version_manifest(version: int) -> str:
    """Return the path of a version's manifest below the catalog."""
    return f"versions/{version:04d}/{MANIFEST}"


def read_manifest_text(root: Folder, name: str) -> bytes | None:
    """Return the text of a manifest of the catalog at `root`, or None if it is missing.

    Raises:
        OSError: It cannot be read.
        UserError: The store cannot be read.
    """
    if isinstance(root, Place):
        return (root / name).read()
    return (root / name).read_bytes() if (root / name).is_file() else None


def _read(root: Folder, name: str) -> Manifest:
    if isinstance(root, Place):
        if (text := (root / name).read()) is None:
            raise UserError(f"{root}: no catalog here ({name} is missing). {_BUILD_ONE}")
        return parse_manifest(text, f"{root}/{name}")
    if not (root / name).is_file():
        raise UserError(f"{root}: no catalog here ({name} is missing). {_others(root)}")
    return read_record(Manifest, root / name, CATALOG_REMEDY)


def _others(root: Path) -> str:
    """Suggest a catalog beside `root`, or a build if there is none."""
    try:
        beside = sorted(
            path.parent.name for path in root.parent.glob(f"*/{MANIFEST}") if path.parent != root
        )
    except OSError:  # the folder cannot be listed
        beside = []
    if beside:
        return suggestion(root.name, beside, f"Catalogs in {root.parent}")
    return _BUILD_ONE


def is_inside(root: Path, name: str) -> bool:
    """Return whether the file `name` of a manifest lies in the catalog after following links."""
    real = os.path.realpath(root)  # does not fail for links that form a loop
    return Path(os.path.realpath(root / name)).is_relative_to(real)


def damaged_files(
    root: Path,
    files: Mapping[str, FileIdentity],
    on_progress: Callable[[int, int], None] | None = None,
) -> dict[str, str]:
    """Return the fault of each file that is missing or has another size or checksum, by name.

    Several files are read at the same time.

    Args:
        root: Folder that the names are relative to.
        files: Expected size and checksum by name.
        on_progress: Called after each file with the bytes checked and the bytes of all files.
    """
    checked, total = 0, sum(file.bytes for file in files.values())
    faults = {}
    with ThreadPoolExecutor(min(MAXIMUM_READERS, os.cpu_count() or 1)) as pool:
        found = pool.map(lambda name: _file_fault(root, name, files[name]), files)
        try:
            for name, fault in zip(files, found, strict=True):
                if fault:
                    faults[name] = fault
                checked += files[name].bytes
                if on_progress:
                    on_progress(checked, total)
        except BaseException:  # an interrupt must not wait for the other files
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return faults


def refuse_damaged(root: Path, faults: Mapping[str, str]) -> None:
    """Refuse the first of the faults that `damaged_files` found below `root`.

    Raises:
        DamagedFileError: There is a fault.
    """
    for name, fault in faults.items():
        raise DamagedFileError(root / name, "the file is missing" if fault == "missing" else fault)


def _file_fault(root: Path, name: str, expected: FileIdentity) -> str:
    path = root / name
    if not is_inside(root, name):
        return "lies outside the catalog"
    if reason := unreadable(path):
        return reason.removeprefix("the file is ")
    try:
        size = path.stat().st_size
        if size != expected.bytes:
            return f"{size} bytes, expected {expected.bytes}"
        return "" if sha256_file(path) == expected.sha256 else "checksum differs"
    except OSError as error:
        return f"cannot be read ({first_line(error)})"
