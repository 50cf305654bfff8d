"""RedPajama-V2 on disk: documents joined with their quality signals and with the corpus's own list of duplicates."""

import logging
import os
import re
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from data_catalog.errors import UserError
from pipeline.config import Rpv2
from pipeline.sources.documents import Document, Fault, Input, Shard, describe, encodable
from pipeline.sources.lines import read_records, text_fault

logger = logging.getLogger(__name__)

SUFFIXES = {"documents": ".json.gz", "quality_signals": ".signals.json.gz", "duplicates": ".duplicates.parquet"}
BUCKETS = {"head": 0.0, "middle": 1.0, "tail": 2.0}
_NAME = re.compile(r"([a-z]{2,3})_(head|middle|tail)\.json\.gz")
_COPIED = {  # signals that the document record itself has, for files without a signals file
    "ccnet_length": "length",
    "ccnet_original_length": "original_length",
    "ccnet_nlines": "nlines",
    "ccnet_original_nlines": "original_nlines",
    "ccnet_language_score": "language_score",
    "ccnet_perplexity": "perplexity",
}


def plan(source: Rpv2) -> list[Shard]:
    """One shard per documents file, ordered by snapshot, shard number, language and bucket.

    Raises:
        UserError: no tree at the path, no documents in it, or a filter names what is not there or leaves nothing.
    """
    root = source.path
    if not (root / "documents").is_dir():
        raise UserError(
            f"source.path {root}: expected a RedPajama-V2 tree, a folder that holds documents/SNAPSHOT/SHARD/LANG_BUCKET.json.gz"
        )
    found = _find(root / "documents")
    if not found:
        raise UserError(f"source.path {root}: no file documents/SNAPSHOT/SHARD/LANG_BUCKET.json.gz in it; download or link some first")
    for key, asked, there in (
        ("snapshots", source.snapshots, {snapshot for snapshot, _, _, _ in found}),
        ("languages", source.languages, {language for _, _, language, _ in found}),
    ):
        if missing := sorted(set(asked) - there):
            raise UserError(f"source.{key}: {', '.join(missing)} not in {root}; there: {', '.join(sorted(there))}")
    chosen = [
        (snapshot, number, language, bucket)
        for snapshot, number, language, bucket in sorted(found)
        if (not source.snapshots or snapshot in source.snapshots)
        and (not source.languages or language in source.languages)
        and bucket in source.buckets
    ][: source.max_shards]
    if not chosen:
        raise UserError(
            f"source: no file of {root} is left by snapshots {list(source.snapshots)}, languages {list(source.languages)} "
            f"and buckets {list(source.buckets)}"
        )
    _compare_with_listings(root, found, {snapshot for snapshot, _, _, _ in chosen}, {language for _, _, language, _ in chosen})
    return [_shard(root, f"{snapshot}/{number}/{language}_{bucket}") for snapshot, number, language, bucket in chosen]


def _find(documents: Path) -> list[tuple[str, str, str, str]]:
    found, strangers = [], []
    for folder, _, names in os.walk(documents):  # does not follow links to folders
        place = Path(folder).relative_to(documents).parts
        for name in names:
            match = _NAME.fullmatch(name)
            if match and len(place) == 2:
                found.append((place[0], place[1], match[1], match[2]))
            else:
                strangers.append("/".join((*place, name)))
    if strangers:
        logger.warning(
            "%s: %d files are not named SNAPSHOT/SHARD/LANG_BUCKET.json.gz and are not read, e.g. %s",
            documents,
            len(strangers),
            min(strangers),
        )
    return found


def _compare_with_listings(root: Path, found: list[tuple[str, str, str, str]], snapshots: set[str], languages: set[str]) -> None:
    """Warn of files that the tree's own listings name and that are not there: a download may have stopped early."""
    there = {f"{snapshot}/{number}/{language}_{bucket}" for snapshot, number, language, bucket in found}
    missing = []
    for listing in sorted((root / "listings").glob("*.txt")):
        language, _, snapshot = listing.stem.rsplit("-", maxsplit=1)[0].partition("-")
        if language in languages and snapshot in snapshots:
            lines = listing.read_text(encoding="utf-8", errors="replace").splitlines()
            missing += [line.strip() for line in lines if line.strip() and line.strip() not in there]
    if missing:
        logger.warning("%s: listings name %d files that documents/ lacks, e.g. %s", root, len(missing), missing[0])


def _shard(root: Path, key: str) -> Shard:
    paths = [root / component / f"{key}{suffix}" for component, suffix in SUFFIXES.items()]
    inputs = tuple(describe(root, path) for path in paths if path.exists() or path.is_symlink())
    return Shard(name=re.sub(r"[^A-Za-z0-9_-]", "_", key), kind="rpv2", root=root, key=key, inputs=inputs)


def read(shard: Shard) -> Iterator[Document | Fault]:
    """Every record of one documents file, in file order.

    A document's row in its file names it and its signals: `doc_id = "SNAPSHOT/SHARD/LANG_BUCKET.json.gz/ROW"`.
    Signals are joined by the row in their `id`; a score of null is left out; a signal with several spans is the mean of its scores.
    """
    inputs = {entry.path.split("/", maxsplit=1)[0]: entry for entry in shard.inputs}
    paths: dict[str, Path] = {}
    for component, entry in inputs.items():
        if (path := _inside(shard.root, entry)) is None:
            detail = "a link that leads out of the tree: put the file itself there"
            yield Fault(entry.path, None, "outside_tree", detail, counted=component == "documents")
        else:
            paths[component] = path
    if "documents" not in paths:
        return
    signals = _Signals()
    if "quality_signals" in paths:
        yield from signals.fill(paths["quality_signals"], inputs["quality_signals"].path, shard.key)
    duplicates: set[int] | None = None
    if "duplicates" in paths:
        listed = _duplicates(paths["duplicates"], inputs["duplicates"].path, shard.key)
        if isinstance(listed, Fault):
            yield listed
        else:
            duplicates = listed
    yield from _documents(shard, paths["documents"], inputs["documents"].path, signals, duplicates)


def _inside(root: Path, entry: Input) -> Path | None:
    path = Path(os.path.realpath(root / entry.path))
    return path if path.is_relative_to(os.path.realpath(root)) else None


def _documents(shard: Shard, path: Path, label: str, signals: "_Signals", duplicates: set[int] | None) -> Iterator[Document | Fault]:
    rows = without = 0
    last = -1
    for item in read_records(path, label):
        if isinstance(item, Fault):
            last = item.row if item.row is not None else last
            yield item
            continue
        row, record = item
        last = row
        text = record.get("raw_content")
        if fault := text_fault(text, label, row, "raw_content"):
            yield fault
            continue
        own = signals.of(row)
        rows, without = rows + 1, without + (not own)
        yield Document(
            doc_id=f"{shard.key}.json.gz/{row}",
            text=str(text),
            url=encodable(record.get("url")),
            source=encodable(record.get("source_domain")),
            language=encodable(record.get("language")),
            signals={**_own_signals(record), **own},
            shipped_duplicate=None if duplicates is None else row in duplicates,
        )
    if beyond := sum(row > last for row in signals.rows):
        yield Fault(
            label, None, "signals_unmatched", f"{beyond} lines of quality signals are of rows after its last, {last}", counted=False
        )
    if without and not shard.key.endswith("_tail"):  # the tail ships none
        name = f"quality_signals/{shard.key}{SUFFIXES['quality_signals']}"
        yield Fault(name, None, "signals_missing", f"{without} of {rows} documents have no quality signals", counted=False)


def _own_signals(record: dict[str, Any]) -> dict[str, float]:
    found = {name: value for name, key in _COPIED.items() if (value := _number(record.get(key))) is not None}
    if isinstance(bucket := record.get("bucket"), str) and bucket in BUCKETS:
        found["ccnet_bucket"] = BUCKETS[bucket]
    return found


def _number(value: object) -> float | None:
    if not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:  # a JSON integer can have thousands of digits
        return None
    return number if isfinite(number) else None


@dataclass
class _Signals:
    """Scores of one file by row, held as doubles: some 500 bytes a document."""

    rows: dict[int, tuple[tuple[str, ...], "array[float]"]] = field(default_factory=dict)
    names: dict[tuple[str, ...], tuple[str, ...]] = field(default_factory=dict)  # most rows have the same: keep one copy

    def of(self, row: int) -> dict[str, float]:
        names, scores = self.rows.pop(row, ((), array("d")))
        return dict(zip(names, scores, strict=True))

    def fill(self, path: Path, label: str, key: str) -> Iterator[Fault]:
        """Read a signals file; what it lacks or has too much of is a fault that loses no document."""
        foreign = 0
        for item in read_records(path, label):
            if isinstance(item, Fault):
                yield Fault(label, item.row, f"signals_{item.reason}", item.detail, counted=False)
                continue
            row, signals = _row(item[1].get("id"), key), item[1].get("quality_signals")
            if row is None or row in self.rows or not isinstance(signals, dict):
                foreign += 1
                continue
            means = {name: mean for name, spans in signals.items() if (mean := _mean(spans)) is not None}
            names = tuple(encodable(name) or "" for name in means)
            self.rows[row] = (self.names.setdefault(names, names), array("d", means.values()))
        if foreign:
            yield Fault(label, None, "signals_unmatched", f"{foreign} lines repeat a document or name none of this file", counted=False)


def _mean(spans: object) -> float | None:
    """Mean of the scores of `[[start, end, score], ...]`: of one span for a document's signal, of its lines for a line's."""
    if not isinstance(spans, list):
        return None
    scores = [score for span in spans if isinstance(span, list) and len(span) == 3 and (score := _number(span[2])) is not None]
    return sum(scores) / len(scores) if scores else None


def _row(doc_id: object, key: str) -> int | None:
    prefix, _, row = doc_id.rpartition("/") if isinstance(doc_id, str) else ("", "", "")
    return int(row) if prefix == f"{key}.json.gz" and row.isdecimal() and len(row) < 19 else None


def _duplicates(path: Path, label: str, key: str) -> set[int] | Fault:
    try:
        listed = pq.read_table(path, columns=["doc_id"])["doc_id"].to_pylist()
    except (OSError, pa.ArrowException, KeyError) as error:
        return Fault(label, None, "duplicates_unreadable", str(error).splitlines()[0][:200], counted=False)
    rows = {row for doc_id in listed if (row := _row(doc_id, key)) is not None}
    return rows
