"""The heads of a few shards, and what they say of the whole corpus: how many documents, of how many characters, in which languages."""

import json
import math
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from time import perf_counter

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data_catalog.settings import Settings
from pipeline.config import Build, Dataset, Jsonl, Parquet, PythonDocs, Rpv2, Text
from pipeline.location import Place
from pipeline.source import dataset, parquet, python_docs, text
from pipeline.source.documents import Document, Fault, Shard

MOST_HEADS = 32
HEAD_BYTES = 2**19  # of each, as they are on disk
HEAD_DOCUMENTS = 256  # of a shard that is not lines of JSON
PYTHON_DOCUMENTS = 16  # of a package: parsing is slow


class Range(Settings):
    """An estimate; the truth is between `low` and `high` in about 19 of 20 cases (two standard errors)."""

    low: int
    """Lower bound."""
    likely: int
    """Point estimate."""
    high: int
    """Upper bound."""


@dataclass(frozen=True)
class Head:
    """The first documents of a shard."""

    texts: list[str]
    languages: list[str]
    records: float  # of the whole shard: counted, or extrapolated by bytes
    share: float  # of them that were read, to a unit of bytes
    size: float  # of the whole shard, in whatever the shards of one source are measured in
    bytes: int  # as they are on disk, that were read
    seconds: float  # that reading and parsing them took
    counted: bool = False  # whether `records` is exact

    @property
    def characters(self) -> float:
        """Of the whole shard, at the mean length of the texts read."""
        return (
            float(np.mean([len(text) for text in self.texts])) * self.records if self.texts else 0.0
        )

    def error(self, counted: bool = False) -> float:
        """Relative variance of `records` (0 if `counted`) or `characters`: that of the mean of as many lengths, drawn without return."""
        if counted or self.share >= 1 or not self.texts:
            return 0.0
        lengths = np.array([len(text) for text in self.texts], np.float64)
        return (
            float(lengths.var() / lengths.mean() ** 2 / len(lengths) * (1 - self.share))
            if lengths.mean()
            else 0.0
        )


def choose(shards: Sequence[Shard]) -> list[int]:
    """Up to `MOST_HEADS` shards, evenly through the corpus by bytes: large ones, and every kind that has many, are among them."""
    if len(shards) <= MOST_HEADS:
        return list(range(len(shards)))
    ends = np.cumsum([max(size_of(shard), 1) for shard in shards])
    places = (np.arange(MOST_HEADS) + 0.5) * (ends[-1] / MOST_HEADS)
    return np.unique(np.searchsorted(ends, places)).tolist()


def size_of(shard: Shard) -> float:
    """What a shard's number of documents is taken to be in proportion to."""
    if shard.kind == "python-docs":
        return float(shard.quota or 0)
    if shard.kind == "dataset":
        return 1.0
    if shard.kind == "text":
        return float(sum(file.bytes for file in shard.inputs))
    first, end = shard.piece or (0, 1)
    return (shard.inputs[0].bytes if shard.inputs else 0) * float(end - first)


def read_head(shard: Shard, config: Build) -> Head:
    """The shard's first documents. What cannot be read counts as a record without text; nothing is raised for a broken file."""
    started = perf_counter()
    counted = False
    match config.source:
        case Rpv2():
            texts, languages, records, share, read = _lines(shard, "raw_content")
        case Jsonl(columns=columns):
            texts, languages, records, share, read = _lines(shard, columns.text)
        case Parquet(columns=columns):
            rows = _rows(shard)
            texts, languages = _documents(parquet.read(shard, columns), HEAD_DOCUMENTS)
            records, share, read, counted = rows, min(len(texts) / max(rows, 1), 1.0), 0, True
        case Text(piece_characters=most):
            texts, records, share, read = _pieces(shard, most)
            languages = [""] * len(texts)
        case Dataset():
            texts, languages = _documents(dataset.read(shard, config.source), HEAD_DOCUMENTS)
            records, share, read = len(texts), float(len(texts) < HEAD_DOCUMENTS), 0
        case PythonDocs():
            held = python_docs.held_modules(config)
            texts, languages = _documents(
                python_docs.read(shard, config.source, held), PYTHON_DOCUMENTS
            )
            records = (shard.quota or 0) if len(texts) == PYTHON_DOCUMENTS else len(texts)
            share, read = len(texts) / max(records, 1), 0
    return Head(
        texts, languages, records, share, size_of(shard), read, perf_counter() - started, counted
    )


def parse_seconds(place: Place) -> float:
    """Seconds that reading a whole file of JSON lines takes, from its head; 0 for one that has none."""
    started = perf_counter()
    size = place.stat().st_size
    lines, share, _ = _complete_lines(place, size)
    for line in lines:
        _parse(line)
    return (perf_counter() - started) / share if share else 0.0


def extrapolate(
    heads: Sequence[Head], values: Sequence[float], errors: Sequence[float], sizes: Sequence[float]
) -> Range:
    """The sum over all shards (their `sizes`) of what is `values[i]`, of relative variance `errors[i]`, for the shard of head i.

    A ratio estimate: values in proportion to sizes (Cochran, Sampling Techniques, 3rd ed., section 6.3), with the finite population
    correction for the shards that were read, and the error within each of these added.
    """
    read = sum(head.size for head in heads)
    if not read:
        return Range(low=0, likely=0, high=0)
    ratio = sum(values) / read
    total = ratio * sum(sizes)
    rest = 1 - len(heads) / len(sizes)
    spread = sum(
        (value - ratio * head.size) ** 2 for value, head in zip(values, heads, strict=True)
    )
    between = spread * len(heads) / max(len(heads) - 1, 1) * rest
    within = sum(value**2 * error for value, error in zip(values, errors, strict=True))
    error = 2 * math.sqrt(between + within) * sum(sizes) / read
    return Range(low=max(round(total - error), 0), likely=round(total), high=round(total + error))


def _lines(shard: Shard, key: str) -> tuple[list[str], list[str], float, float, int]:
    if not shard.inputs:
        return [], [], 0, 1, 0
    lines, share, read = _complete_lines(shard.root / shard.inputs[0].path, shard.inputs[0].bytes)
    found = [_parse(line) for line in lines if line.strip()]
    readable = [record for record in found if isinstance(record.get(key), str)]
    languages = [str(record.get("language") or "") for record in readable]
    return (
        [str(record[key]) for record in readable],
        languages,
        len(found) / share if share else 0,
        share,
        read,
    )


def _pieces(shard: Shard, most: int) -> tuple[list[str], float, float, int]:
    """Of the shard's first files, the last of which is cut; what cannot be read is a record without text."""
    texts, records, read, seen = [], 0.0, 0, 0
    for file in shard.inputs:
        if read >= HEAD_BYTES:
            break
        head, whole = _text_of(shard.root / file.path, HEAD_BYTES - read)
        found = [piece for piece in text.pieces([head], file.path, most) if isinstance(piece, str)]
        texts += found
        records += max(len(found), 1) if whole else len(head) / most
        seen += file.bytes if whole else min(HEAD_BYTES - read, file.bytes)
        read += file.bytes
    share = seen / max(size_of(shard), 1)
    return texts, records / share if share else records, share or 1.0, seen


def _text_of(place: Place, most: int) -> tuple[str, bool]:
    """The beginning of a text file, from its first `most` bytes, and whether these are all."""
    try:
        with place.open("rb") as file:
            head = file.read(most + 1)
    except OSError:
        return "", True
    plain = _decompressed(head[:most]) if place.name.lower().endswith(".gz") else head[:most]
    return plain.decode("utf-8", "ignore"), len(head) <= most


def _complete_lines(place: Place, size: int) -> tuple[list[bytes], float, int]:
    """The whole lines in a file's first `HEAD_BYTES`, their share of the file, and the bytes read."""
    try:
        with place.open("rb") as file:
            head = file.read(HEAD_BYTES)
    except OSError:
        return [], 0.0, 0
    plain = _decompressed(head) if place.name.endswith(".gz") else head
    if len(head) >= size:
        return plain.splitlines(), 1.0, len(head)
    end = plain.rfind(b"\n") + 1
    return plain[:end].splitlines(), end / max(len(plain), 1) * len(head) / size, len(head)


def _decompressed(data: bytes) -> bytes:
    """What a piece of a gzip file holds, as far as it can be read."""
    found = b""
    try:
        while data:
            member = zlib.decompressobj(wbits=31)
            found += member.decompress(data, 64 * HEAD_BYTES)
            data = member.unused_data
    except zlib.error:
        pass
    return found


def _parse(line: bytes) -> dict[str, object]:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return record if isinstance(record, dict) else {}


def _documents(records: Iterator[Document | Fault], most: int) -> tuple[list[str], list[str]]:
    found = [record for record in islice(records, most) if isinstance(record, Document)]
    return [document.text for document in found], [document.language or "" for document in found]


def _rows(shard: Shard) -> int:
    try:
        with (shard.root / shard.key).open("rb") as raw, pq.ParquetFile(raw) as file:
            groups = range(*shard.piece) if shard.piece else range(file.metadata.num_row_groups)
            return sum(file.metadata.row_group(group).num_rows for group in groups)
    except (OSError, pa.ArrowException):
        return 0
