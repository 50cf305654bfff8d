"""Types of the source stage: shards to read, and the documents and faults that reading gives."""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from data_catalog.settings import Settings
from pipeline.location import Location


class Input(Settings):
    """One file or folder that a shard is read from, with what shows that it changed."""

    path: str
    """Path below the root of the shard, with forward slashes, as ids and messages show it."""
    raw: str | None = None
    """The path's bytes in hexadecimal digits, for a local path that is not UTF-8."""
    bytes: int
    """Size of the file."""
    modified_ns: int | None = None
    """Modification time in nanoseconds, for local files."""
    version: str | None = None
    """Version reported by a remote store (ETag or checksum), otherwise its modification time."""

    @property
    def name(self) -> str:
        """The path that opens the file."""
        return self.path if self.raw is None else os.fsdecode(bytes.fromhex(self.raw))


class Shard(Settings):
    """One piece of the input. It becomes one part, and can be sent to another process as JSON."""

    name: str
    """Name of the shard. Safe as a folder name."""
    kind: str
    """Kind of the source, a key of `pipeline.source.registry.SOURCES`."""
    root: Location
    """Root of the corpus."""
    key: str
    """Identifier within the source. rpv2: SNAPSHOT/SHARD/LANG_BUCKET. jsonl, parquet and text: path
    of the (first) file below the root. dataset: its name. python-docs: the package."""
    inputs: tuple[Input, ...]
    """Files that the shard is read from."""
    beside: tuple[Input, ...] = ()
    """rpv2: files that later stages may read."""
    quota: int | None = None
    """Maximum number of documents, for python-docs and target datasets."""
    piece: tuple[int, int] | None = None
    """parquet: row groups [first, end) of the file. dataset: number of this shard and number of all
    shards."""

    def identity(self) -> dict[str, Any]:
        """Return the fields that enter the fingerprint of the source part.

        The root is left out: a moved corpus is the same corpus. Files in `beside` are left out too:
        they do not change the documents. A stage that reads them adds them to its own fingerprint.
        """
        plain = self.model_dump(
            mode="json", exclude={"root", "beside"} | ({"piece"} if self.piece is None else set())
        )
        plain["inputs"] = [
            {key: value for key, value in entry.items() if value is not None}
            for entry in plain["inputs"]
        ]
        return plain


@dataclass(frozen=True)
class Document:
    """One readable record."""

    doc_id: str
    text: str
    url: str | None = None
    source: str | None = None
    language: str | None = None
    signals: Mapping[str, float] = field(default_factory=dict)
    shipped_duplicate: bool | None = None
    """True if the corpus lists the document as a copy. None if it ships no such list."""


@dataclass(frozen=True)
class Fault:
    """One thing that could not be read."""

    file: str
    row: int | None
    """Row in the file, from 0. None for the file as a whole."""
    reason: str
    detail: str
    characters: int = 0
    """Length of the record's text, if the text could be decoded."""
    counted: bool = True
    """True if documents are lost. False for a note: something that the reader has to know and that
    loses no document, such as a fault of a side file."""
    records: int = 1
    """Number of documents that are lost, at least 1 for a broken file. For a note, the number of
    records, lines or files that it is about."""
    doc_id: str | None = None
    """Identifier of a document that was read and that a later stage cannot process."""


@dataclass(frozen=True)
class Inventory:
    """The content of a source's path, before any document is read."""

    shards: list[Shard]
    """Pieces to read, always in the same order."""
    unread: list[Fault] = field(default_factory=list)
    """Files that no shard reads: one note per reason, with their number and an example."""


def document_number(doc_id: str) -> int:
    """Return the first 8 bytes of `sha1(doc_id)` as a little-endian unsigned integer.

    This is the `id_int` of RedPajama-V2.
    """
    return int.from_bytes(
        hashlib.sha1(doc_id.encode(), usedforsecurity=False).digest()[:8], "little"
    )


def text_digest(text: str) -> str:
    """Return the 128-bit BLAKE2b digest of the UTF-8 text in hex. Only exact copies share it."""
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def unit_hash(purpose: str, key: str) -> float:
    """Return a pseudo-random number in [0, 1) that depends on `purpose` and `key` alone."""
    digest = hashlib.blake2b(f"{purpose}\0{key}".encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "big") >> 11) / 2**53


def encodable(value: object) -> str | None:
    """Return a string with lone surrogates, which UTF-8 cannot encode, replaced by `?`.

    Return None if `value` is not a string.
    """
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else None
