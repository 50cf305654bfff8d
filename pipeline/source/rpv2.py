"""RedPajama-V2 on disk: documents joined with their quality signals and with the corpus's own list of duplicates."""

import logging
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from data_catalog.errors import UserError
from pipeline.config import Rpv2
from pipeline.location import Place, is_local
from pipeline.source.documents import Document, Fault, Input, Shard, encodable
from pipeline.source.files import Listed, describe, list_files
from pipeline.source.lines import read_records, text_fault
from pipeline.source.rpv2_signals import Signals, own_signals, read_duplicates

logger = logging.getLogger(__name__)

SUFFIXES = {  # component -> how its files end
    "documents": ".json.gz",
    "quality_signals": ".signals.json.gz",
    "duplicates": ".duplicates.parquet",
    "minhash": ".minhash.parquet",
}
READ = ("documents", "quality_signals", "duplicates")  # by the source stage; the others lie beside
_NAME = re.compile(r"([a-z]{2,3})_(head|middle|tail)\.json\.gz")


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
    files = list_files(root / "documents")
    found = _find(root / "documents", files)
    if not found:
        raise UserError(
            f"source.path {root}: no file documents/SNAPSHOT/SHARD/LANG_BUCKET.json.gz in it; download or link some first"
        )
    for key, asked, there in (
        ("snapshots", source.snapshots, {snapshot for snapshot, _, _, _ in found}),
        ("languages", source.languages, {language for _, _, language, _ in found}),
    ):
        if missing := sorted(set(asked) - there):
            raise UserError(
                f"source.{key}: {', '.join(missing)} not in {root}; there: {', '.join(sorted(there))}"
            )
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
    _compare_with_listings(
        root,
        found,
        {snapshot for snapshot, _, _, _ in chosen},
        {language for _, _, language, _ in chosen},
    )
    listed = {
        component: files if component == "documents" else list_files(root / component)
        for component in SUFFIXES
    }
    return [
        _shard(root, f"{snapshot}/{number}/{language}_{bucket}", listed)
        for snapshot, number, language, bucket in chosen
    ]


def _find(documents: Place, files: Listed) -> list[tuple[str, str, str, str]]:
    found, strangers = [], []
    for file in files:
        *place, name = file.split("/")
        match = _NAME.fullmatch(name)
        if match and len(place) == 2:
            found.append((place[0], place[1], match[1], match[2]))
        elif not name.endswith(".part"):
            strangers.append(file)
    if strangers:
        logger.warning(
            "%s: %d files are not named SNAPSHOT/SHARD/LANG_BUCKET.json.gz and are not read, e.g. %s",
            documents,
            len(strangers),
            min(strangers),
        )
    return found


def _compare_with_listings(
    root: Place, found: list[tuple[str, str, str, str]], snapshots: set[str], languages: set[str]
) -> None:
    """Warn of files that the tree's own listings name and that are not there: a download may have stopped early."""
    there = {
        f"{snapshot}/{number}/{language}_{bucket}" for snapshot, number, language, bucket in found
    }
    missing = []
    for name in list_files(root / "listings"):
        language, _, snapshot = name.removesuffix(".txt").rsplit("-", maxsplit=1)[0].partition("-")
        if language in languages and snapshot in snapshots:
            lines = (
                (root / "listings" / name)
                .read_text(encoding="utf-8", errors="replace")
                .splitlines()
            )
            missing += [
                line.strip() for line in lines if line.strip() and line.strip() not in there
            ]
    if missing:
        logger.warning(
            "%s: listings name %d files that documents/ lacks, e.g. %s",
            root,
            len(missing),
            missing[0],
        )


def _shard(root: Place, key: str, listed: Mapping[str, Listed]) -> Shard:
    inputs, beside = [], []
    for component, suffix in SUFFIXES.items():
        name = f"{key}{suffix}"
        if name not in listed[component]:
            continue
        info = listed[component][name]
        entry = describe(root, f"{component}/{name}", info)
        if component in READ:
            inputs.append(entry)
        elif _inside(root, entry) is None:
            logger.warning(
                "%s/%s: a link that leads out of the tree; it is not read", root, entry.path
            )
        else:
            beside.append(entry)
    safe = re.sub(r"[^A-Za-z0-9_-]", "_", key)
    return Shard(
        name=safe, kind="rpv2", root=root, key=key, inputs=tuple(inputs), beside=tuple(beside)
    )


def read(shard: Shard) -> Iterator[Document | Fault]:
    """Every record of one documents file, in file order.

    A document's row in its file names it and its signals: `doc_id = "SNAPSHOT/SHARD/LANG_BUCKET.json.gz/ROW"`.
    Signals are joined by the row in their `id`; a score of null is left out; a signal with several spans is the mean of its scores.
    """
    inputs = {entry.path.split("/", maxsplit=1)[0]: entry for entry in shard.inputs}
    paths: dict[str, Place] = {}
    for component, entry in inputs.items():
        if (path := _inside(shard.root, entry)) is None:
            detail = "a link that leads out of the tree: put the file itself there"
            yield Fault(entry.path, None, "outside_tree", detail, counted=component == "documents")
        else:
            paths[component] = path
    if "documents" not in paths:
        return
    signals = Signals()
    if "quality_signals" in paths:
        yield from signals.fill(paths["quality_signals"], inputs["quality_signals"].path, shard.key)
    duplicates: set[int] | None = None
    if "duplicates" in paths:
        listed = read_duplicates(paths["duplicates"], inputs["duplicates"].path, shard.key)
        if isinstance(listed, Fault):
            yield listed
        else:
            duplicates = listed
    yield from _documents(shard, paths["documents"], inputs["documents"].path, signals, duplicates)


def _inside(root: Place, entry: Input) -> Place | None:
    if not is_local(root):
        return root / entry.path  # stores have no links
    path = Path(os.path.realpath(f"{root}/{entry.path}"))
    return path if path.is_relative_to(os.path.realpath(str(root))) else None


def _documents(
    shard: Shard, path: Place, label: str, signals: Signals, duplicates: set[int] | None
) -> Iterator[Document | Fault]:
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
            signals={**own_signals(record), **own},
            shipped_duplicate=None if duplicates is None else row in duplicates,
        )
    if beyond := sum(row > last for row in signals.rows):
        yield Fault(
            label,
            None,
            "signals_unmatched",
            f"{beyond} lines of quality signals are of rows after its last, {last}",
            counted=False,
        )
    if without and not shard.key.endswith("_tail"):  # the tail ships none
        name = f"quality_signals/{shard.key}{SUFFIXES['quality_signals']}"
        yield Fault(
            name,
            None,
            "signals_missing",
            f"{without} of {rows} documents have no quality signals",
            counted=False,
        )
