"""The nouns of the source stage: a shard to read, and the documents and faults that reading it gives."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from data_catalog.settings import Settings
from pipeline.location import Location


class Input(Settings):
    """One file or folder that a shard is read from, and how to notice that it changed."""

    path: str
    """Path below the root of the shard, with forward slashes."""
    bytes: int
    """Size of the file."""
    modified_ns: int | None = None
    """Modification time in nanoseconds, for local files."""
    version: str | None = None
    """Version reported by a remote store (ETag or checksum), otherwise its modification time."""


class Shard(Settings):
    """One piece of the input: becomes one part. Serialisable, so that it can be sent to another process."""

    name: str
    """Name of the shard. Safe as a folder name."""
    kind: Literal["rpv2", "jsonl", "parquet", "dataset", "text", "python-docs"]
    """Kind of the source."""
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
        """What the source part's fingerprint is made of.

        Not the root: a moved corpus is the same corpus. Not what lies `beside`: signatures that arrive later leave the documents as they
        are; a stage that reads such files adds their entries to its own fingerprint.
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
    shipped_duplicate: bool | None = None  # None: the corpus does not say


@dataclass(frozen=True)
class Fault:
    """One thing that could not be read."""

    file: str
    row: int | None  # None: the file as a whole
    reason: str
    detail: str
    characters: int = 0  # of its text, if that was decoded
    counted: bool = True  # False: a side file is at fault, no document is lost


def document_number(doc_id: str) -> int:
    """The first 8 bytes of sha1(doc_id), little-endian and unsigned, as RedPajama-V2 defines `id_int`."""
    return int.from_bytes(
        hashlib.sha1(doc_id.encode(), usedforsecurity=False).digest()[:8], "little"
    )


def text_digest(text: str) -> str:
    """128-bit BLAKE2b of the text as UTF-8, in hex: equal for exact copies only."""
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def unit_hash(purpose: str, key: str) -> float:
    """A number in [0, 1) that depends on nothing but `purpose` and `key`: decides splits and samples."""
    digest = hashlib.blake2b(f"{purpose}\0{key}".encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "big") >> 11) / 2**53


def encodable(value: object) -> str | None:
    """`value` if it is a string, with what UTF-8 cannot hold (lone surrogates) replaced by `?`; else None."""
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else None
