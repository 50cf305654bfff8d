"""RedPajama-V2: documents joined with their quality signals and the corpus's own duplicates."""

import logging
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from data_catalog.errors import UserError
from pipeline.location import Place, is_local
from pipeline.source.config import Rpv2
from pipeline.source.documents import Document, Fault, Input, Shard, encodable
from pipeline.source.files import Listing, describe_file, list_files
from pipeline.source.head import Head, head_of_json_lines
from pipeline.source.interface import Source
from pipeline.source.lines import read_records, text_fault
from pipeline.source.rpv2_signals import QualitySignals, read_duplicates, record_signals

logger = logging.getLogger(__name__)

COMPONENT_SUFFIXES = {
    "documents": ".json.gz",
    "quality_signals": ".signals.json.gz",
    "duplicates": ".duplicates.parquet",
    "minhash": ".minhash.parquet",
}
# Components that the source stage reads. The others are listed in `Shard.beside`.
_READ_COMPONENTS = ("documents", "quality_signals", "duplicates")
_FILE_NAME = re.compile(r"([a-z]{2,3})_(head|middle|tail)\.json\.gz")
_TREE = "documents/SNAPSHOT/SHARD/LANG_BUCKET.json.gz"

_Tag = tuple[str, str, str, str]  # snapshot, shard number, language, bucket


class Rpv2Source(Source[Rpv2]):
    """A RedPajama-V2 tree, in a folder or at a URL."""

    def plan(self) -> list[Shard]:
        """Return one shard per documents file, by snapshot, shard number, language and bucket.

        Raises:
            UserError: There is no tree at the path, it has no documents, or a filter names
                something it does not have or leaves nothing.
        """
        section, root = self.section, self.section.path
        if not (root / "documents").is_dir():
            raise UserError(
                f"source.path {root}: this is not a RedPajama-V2 tree. "
                f"Expected a folder that contains {_TREE}."
            )
        files = list_files(root / "documents")
        tags = _tags(root / "documents", files)
        if not tags:
            raise UserError(
                f"source.path {root}: the tree has no file {_TREE}. Download or link some first."
            )
        for key, values, available in (
            ("snapshots", section.snapshots, {snapshot for snapshot, _, _, _ in tags}),
            ("languages", section.languages, {language for _, _, language, _ in tags}),
        ):
            if missing := sorted(set(values) - available):
                raise UserError(
                    f"source.{key}: {', '.join(missing)} is not in {root}. "
                    f"Choose from {', '.join(sorted(available))}."
                )
        chosen = [
            (snapshot, number, language, bucket)
            for snapshot, number, language, bucket in sorted(tags)
            if (not section.snapshots or snapshot in section.snapshots)
            and (not section.languages or language in section.languages)
            and bucket in section.buckets
        ][: section.max_shards]
        if not chosen:
            raise UserError(
                f"source: no file of {root} has one of source.snapshots "
                f"{list(section.snapshots)}, source.languages {list(section.languages)} and "
                f"source.buckets {list(section.buckets)}. Choose others."
            )
        _compare_with_listings(root, tags, chosen)
        listings = {
            component: files if component == "documents" else list_files(root / component)
            for component in COMPONENT_SUFFIXES
        }
        return [
            _shard(root, f"{snapshot}/{number}/{language}_{bucket}", listings)
            for snapshot, number, language, bucket in chosen
        ]

    def read(self, shard: Shard) -> Iterator[Document | Fault]:
        """Yield every record of one documents file, in the order of the file.

        A document is named by its row: `doc_id` is `SNAPSHOT/SHARD/LANG_BUCKET.json.gz/ROW`.
        Signals are joined by the row in their `id`. A null score is left out. A signal with
        several spans is the mean of its scores.
        """
        inputs = {entry.path.split("/", maxsplit=1)[0]: entry for entry in shard.inputs}
        paths: dict[str, Place] = {}
        for component, entry in inputs.items():
            if (path := _path_inside(shard.root, entry)) is None:
                detail = "a link that leads out of the tree: put the file itself there"
                is_document = component == "documents"
                yield Fault(entry.path, None, "outside_tree", detail, counted=is_document)
            else:
                paths[component] = path
        if "documents" not in paths:
            return
        signals = QualitySignals()
        if "quality_signals" in paths:
            label = inputs["quality_signals"].path
            yield from signals.fill(paths["quality_signals"], label, shard.key)
        duplicates: set[int] | None = None
        if "duplicates" in paths:
            rows = read_duplicates(paths["duplicates"], inputs["duplicates"].path, shard.key)
            if isinstance(rows, Fault):
                yield rows
            else:
                duplicates = rows
        label = inputs["documents"].path
        yield from _documents(shard, paths["documents"], label, signals, duplicates)

    def size(self, shard: Shard) -> float:
        """Return the bytes of the documents file."""
        return float(shard.inputs[0].bytes if shard.inputs else 0)

    def read_head(self, shard: Shard) -> Head:
        """Return the records in the first bytes of the documents file."""
        return head_of_json_lines(shard, "raw_content")

    def side_files(self, shard: Shard) -> list[Place]:
        """Return the file of quality signals, if there is one."""
        return [
            shard.root / entry.path
            for entry in shard.inputs
            if entry.path.startswith("quality_signals/")
        ]


def _tags(documents: Place, files: Listing) -> list[_Tag]:
    tags, strangers = [], []
    for file in files:
        *folders, name = file.split("/")
        match = _FILE_NAME.fullmatch(name)
        if match and len(folders) == 2:
            tags.append((folders[0], folders[1], match[1], match[2]))
        elif not name.endswith(".part"):
            strangers.append(file)
    if strangers:
        logger.warning(
            "%s: %d files are not named %s and are not read, e.g. %s",
            documents,
            len(strangers),
            _TREE.partition("/")[2],
            min(strangers),
        )
    return tags


def _compare_with_listings(root: Place, tags: Sequence[_Tag], chosen: Sequence[_Tag]) -> None:
    """Warn about files in the tree's listings that are missing. A download may be incomplete."""
    snapshots = {snapshot for snapshot, _, _, _ in chosen}
    languages = {language for _, _, language, _ in chosen}
    present = {
        f"{snapshot}/{number}/{language}_{bucket}" for snapshot, number, language, bucket in tags
    }
    missing = []
    for name in list_files(root / "listings"):
        language, _, snapshot = name.removesuffix(".txt").rsplit("-", maxsplit=1)[0].partition("-")
        if language in languages and snapshot in snapshots:
            listing = (root / "listings" / name).read_text(encoding="utf-8", errors="replace")
            lines = [line.strip() for line in listing.splitlines()]
            missing += [line for line in lines if line and line not in present]
    if missing:
        logger.warning(
            "%s: listings name %d files that documents/ lacks, e.g. %s",
            root,
            len(missing),
            missing[0],
        )


def _shard(root: Place, key: str, listings: Mapping[str, Listing]) -> Shard:
    inputs, beside = [], []
    for component, suffix in COMPONENT_SUFFIXES.items():
        name = f"{key}{suffix}"
        if name not in listings[component]:
            continue
        entry = describe_file(root, f"{component}/{name}", listings[component][name])
        if component in _READ_COMPONENTS:
            inputs.append(entry)
        elif _path_inside(root, entry) is None:
            logger.warning(
                "%s/%s: this link leads out of the tree and is not read.", root, entry.path
            )
        else:
            beside.append(entry)
    return Shard(
        name=re.sub(r"[^A-Za-z0-9_-]", "_", key),
        kind="rpv2",
        root=root,
        key=key,
        inputs=tuple(inputs),
        beside=tuple(beside),
    )


def _path_inside(root: Place, entry: Input) -> Place | None:
    if not is_local(root):
        return root / entry.path  # stores have no links
    path = Path(os.path.realpath(f"{root}/{entry.path}"))
    return path if path.is_relative_to(os.path.realpath(str(root))) else None


def _documents(
    shard: Shard, path: Place, label: str, signals: QualitySignals, duplicates: set[int] | None
) -> Iterator[Document | Fault]:
    rows = rows_without_signals = 0
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
        shipped = signals.take(row)
        rows, rows_without_signals = rows + 1, rows_without_signals + (not shipped)
        yield Document(
            doc_id=f"{shard.key}.json.gz/{row}",
            text=str(text),
            url=encodable(record.get("url")),
            source=encodable(record.get("source_domain")),
            language=encodable(record.get("language")),
            signals={**record_signals(record), **shipped},
            shipped_duplicate=None if duplicates is None else row in duplicates,
        )
    if beyond := sum(row > last for row in signals.rows):
        detail = f"{beyond} lines of quality signals are of rows after its last, {last}"
        yield Fault(label, None, "signals_unmatched", detail, counted=False)
    if rows_without_signals and not shard.key.endswith("_tail"):  # the tail ships no signals
        name = f"quality_signals/{shard.key}{COMPONENT_SUFFIXES['quality_signals']}"
        detail = f"{rows_without_signals} of {rows} documents have no quality signals"
        yield Fault(name, None, "signals_missing", detail, counted=False)
