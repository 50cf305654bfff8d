"""The head of a shard: its first documents, and an estimate of how many documents it has."""

import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np

from pipeline.location import Place
from pipeline.source.documents import Document, Fault, Shard

HEAD_BYTES = 2**19  # stored bytes read per shard
HEAD_DOCUMENTS = 256  # documents read per shard if its bytes cannot be counted


@dataclass(frozen=True)
class Head:
    """The first documents of a shard, and its number of records."""

    texts: list[str]
    languages: list[str]
    records: float
    """Records of the whole shard: counted, or extrapolated by bytes."""
    share: float
    """Share of the shard that was read, from 0 to 1."""
    counted: bool = False
    """True if `records` is exact."""

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


def head_of_documents(records: Iterator[Document | Fault], maximum: int) -> Head:
    """Return the head made of at most `maximum` records.

    Its `share` is 1 if there are fewer documents than `maximum`, else 0.
    """
    documents = [record for record in islice(records, maximum) if isinstance(record, Document)]
    return Head(
        [document.text for document in documents],
        [document.language or "" for document in documents],
        len(documents),
        float(len(documents) < maximum),
    )


def head_of_json_lines(shard: Shard, text_key: str) -> Head:
    """Return the head of the shard's first file, read as JSON lines.

    A line without a text counts as a record. A broken file gives what can be read.
    """
    if not shard.inputs:
        return Head([], [], 0, 1)
    lines, share = _complete_lines(shard.root / shard.inputs[0].path, shard.inputs[0].bytes)
    records = [parse_line(line) for line in lines if line.strip()]
    readable = [record for record in records if isinstance(record.get(text_key), str)]
    return Head(
        [str(record[text_key]) for record in readable],
        [str(record.get("language") or "") for record in readable],
        len(records) / share if share else 0,
        share,
    )


def parse_head(place: Place) -> float:
    """Parse the head of a JSON lines file, and return the share of the file that it is."""
    lines, share = _complete_lines(place, place.stat().st_size)
    for line in lines:
        parse_line(line)
    return share


def parse_line(line: bytes) -> dict[str, object]:
    """Return a line's JSON object, or an empty one if the line holds none."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return record if isinstance(record, dict) else {}


def read_beginning(place: Place, maximum_bytes: int) -> tuple[str, bool]:
    """Return the text in a file's first stored bytes, and whether these are the whole file."""
    try:
        with place.open("rb") as file:
            data = file.read(maximum_bytes + 1)
    except OSError:
        return "", True
    beginning = data[:maximum_bytes]
    plain = _decompressed(beginning) if place.name.lower().endswith(".gz") else beginning
    return plain.decode("utf-8", "ignore"), len(data) <= maximum_bytes


def _complete_lines(place: Place, size: int) -> tuple[list[bytes], float]:
    """Return the whole lines in a file's first `HEAD_BYTES`, and their share of the file."""
    try:
        with place.open("rb") as file:
            data = file.read(HEAD_BYTES)
    except OSError:
        return [], 0.0
    plain = _decompressed(data) if place.name.endswith(".gz") else data
    if len(data) >= size:
        return plain.splitlines(), 1.0
    end = plain.rfind(b"\n") + 1
    return plain[:end].splitlines(), end / max(len(plain), 1) * len(data) / size


def _decompressed(data: bytes) -> bytes:
    """Decompress the beginning of a gzip file, as far as it can be read."""
    plain = b""
    try:
        while data:
            member = zlib.decompressobj(wbits=31)
            plain += member.decompress(data, 64 * HEAD_BYTES)
            data = member.unused_data
    except zlib.error:
        pass
    return plain
