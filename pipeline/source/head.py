"""The head of a shard: its first documents, and an estimate of how many documents it has."""

import gzip
import io
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal

import numpy as np

from pipeline.location import File
from pipeline.source.documents import Document, Fault
from pipeline.source.lines import read_records
from pipeline.source.unpack import BadZstdError, OtherFormatError, open_unpacked

HEAD_BYTES = 2**19  # stored bytes read per shard
HEAD_DOCUMENTS = 256  # documents read per shard if its bytes cannot be counted
_MAXIMUM_PACKING = 64  # a file that is packed more than this many times is read in part
_BLOCK_BYTES = 2**16


@dataclass(frozen=True)
class Head:
    """The first documents of a shard, and its number of documents."""

    texts: list[str]
    languages: list[str]
    records: float
    """Documents of the whole shard: counted, or extrapolated by bytes."""
    share: float
    """Share of the shard that was read, from 0 to 1."""
    counted: bool = False
    """True if `records` is exact."""
    faults: tuple[Fault, ...] = ()
    """Faults and notes of the records that were read."""

    @property
    def characters(self) -> float:
        """Characters of the whole shard, at the mean length of the texts in the head."""
        return (
            float(np.mean([len(text) for text in self.texts])) * self.records if self.texts else 0.0
        )

    def error(self, counted: bool = False) -> float:
        """Return the relative variance of an amount that is extrapolated from the head.

        It is that of the mean length in the head, as a sample without replacement. An amount that
        is `counted` has no error.
        """
        if counted or self.share >= 1 or not self.texts:
            return 0.0
        lengths = np.array([len(text) for text in self.texts], np.float64)
        return (
            float(lengths.var() / lengths.mean() ** 2 / len(lengths) * (1 - self.share))
            if lengths.mean()
            else 0.0
        )


def head_of_records(records: Iterable[Document | Fault], share: float = 1.0) -> Head:
    """Return the head made of records that are `share` of a shard."""
    documents, faults = [], []
    for record in records:
        if isinstance(record, Document):
            documents.append(record)
        else:
            faults.append(record)
    return Head(
        [document.text for document in documents],
        [document.language or "" for document in documents],
        len(documents) / share if share else 0,
        share,
        faults=tuple(faults),
    )


def head_of_documents(records: Iterator[Document | Fault], maximum: int) -> Head:
    """Return the head made of at most `maximum` records.

    Its `share` is 1 if there are fewer documents than `maximum`, else 0.
    """
    head = head_of_records(islice(records, maximum))
    return Head(
        head.texts,
        head.languages,
        len(head.texts),
        float(len(head.texts) < maximum),
        faults=head.faults,
    )


@dataclass(frozen=True)
class Beginning:
    """The first bytes of a file, which readers take for a file of its own."""

    name: str
    data: bytes

    def open(self, mode: Literal["rb"] = "rb", /) -> Any:  # noqa: ARG002
        return io.BytesIO(self.data)


def head_of_lines(
    file: File, size: int, read: Callable[[File], Iterator[Document | Fault]]
) -> Head:
    """Return the head of a file whose records are lines.

    Args:
        file: The file.
        size: Its size in bytes.
        read: The reader of the stage. It is given the beginning of the file, as far as lines are
            whole.
    """
    beginning, share = whole_lines(file, size, HEAD_BYTES)
    return head_of_records(read(beginning), share)


def whole_lines(
    file: File, size: int, maximum: int, separators: bytes = b"\n"
) -> tuple[File, float]:
    """Return the whole lines in a file's first `maximum` stored bytes, and their share of the file.

    Nothing is read after damage, so the lines before it are the whole file. A file that cannot be
    opened is returned as it is.

    Args:
        file: The file.
        size: Its size in bytes.
        maximum: Maximum number of bytes to read.
        separators: Bytes that end a line.
    """
    try:
        with file.open("rb") as raw:
            data = raw.read(maximum + 1)
    except OSError:
        return file, 1.0
    is_whole = len(data) <= maximum
    stored = Beginning(file.name, data[:maximum])
    plain, end = _unpack(stored, maximum * _MAXIMUM_PACKING)
    if end == "damage" or (is_whole and end != "limit"):
        return stored, 1.0
    last = max(plain.rfind(byte) for byte in separators) + 1
    share = last / max(len(plain), 1) * min(maximum / max(size, 1), 1.0)
    return Beginning("", plain[:last]), share


def _unpack(stored: Beginning, maximum: int) -> tuple[bytes, Literal["end", "limit", "damage"]]:
    """Return the decompressed bytes, and why they end.

    A compressed stream that ends too early has reached its end: its file was cut.
    """
    plain = bytearray()
    try:
        with open_unpacked(stored) as file:
            while file is not None and (block := file.read1(_BLOCK_BYTES)):
                plain += block
                if len(plain) >= maximum:
                    return bytes(plain), "limit"
    except EOFError:
        return bytes(plain), "end"
    except (gzip.BadGzipFile, zlib.error, BadZstdError, OtherFormatError):
        return bytes(plain), "damage"
    return bytes(plain), "end"


def parse_head(file: File, size: int) -> float:
    """Parse the head of a JSON lines file, and return the share of the file that it is."""
    beginning, share = whole_lines(file, size, HEAD_BYTES)
    for _ in read_records(beginning, file.name):
        pass
    return share
