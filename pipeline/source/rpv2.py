"""RedPajama-V2: documents joined with their quality signals and the corpus's own duplicates."""

import os
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from data_catalog.errors import UserError
from pipeline.location import File, Place, file_below
from pipeline.source.config import Rpv2
from pipeline.source.documents import Document, Fault, Input, Inventory, Shard, encodable
from pipeline.source.files import FoundFile, describe_file, file_labels
from pipeline.source.head import Head, head_of_lines, head_of_records
from pipeline.source.interface import Source
from pipeline.source.lines import read_records, text_fault
from pipeline.source.rpv2_signals import QualitySignals, read_duplicates, record_signals
from pipeline.source.unread import unread_notes
from pipeline.source.walk import Files, walk

COMPONENT_SUFFIXES = {
    "documents": ".json.gz",
    "quality_signals": ".signals.json.gz",
    "duplicates": ".duplicates.parquet",
    "minhash": ".minhash.parquet",
}
# Components that the source stage reads. The others are listed in `Shard.beside`.
_READ_COMPONENTS = ("documents", "quality_signals", "duplicates")
_FILE_NAME = re.compile(r"documents/([^/]+)/([^/]+)/([a-z]{2,3})_(head|middle|tail)\.json\.gz")
_LISTED = re.compile(r"[^/\s]+/[0-9]+/[a-z]{2,3}_(?:head|middle|tail)")
_SIDE_FILE = re.compile(
    "|".join(
        f"{component}/([^/]+/[^/]+/[^/]+){re.escape(suffix)}"
        for component, suffix in COMPONENT_SUFFIXES.items()
    )
)
_TREE = "documents/SNAPSHOT/SHARD/LANG_BUCKET.json.gz"

_Tag = tuple[str, str, str, str]  # snapshot, shard number, language, bucket


class Rpv2Source(Source[Rpv2]):
    """A RedPajama-V2 tree, in a folder or at a URL."""

    def plan(self) -> Inventory:
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
        tree = walk(root)
        tags = _tags(tree.files)
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
        hidden = [name for names in tree.unread.values() for name in names]
        labels = file_labels([*tree.files, *hidden])
        shards = [_shard(root, _key(tag), tree.files, labels) for tag in chosen]
        unread = _unread(root, tree.files, tags, chosen, shards)
        unread["missing_file"] = _missing(root, tree.files, tags, chosen)
        notes = {
            reason: [labels.get(name, name) for name in names]
            for reason, names in ({**tree.unread, **unread}).items()
        }
        return Inventory(shards, unread_notes(notes))

    def read(self, shard: Shard) -> Iterator[Document | Fault]:
        """Yield every record of one documents file, in the order of the file.

        A document is named by its row: `doc_id` is `SNAPSHOT/SHARD/LANG_BUCKET.json.gz/ROW`.
        Signals are joined by the row in their `id`. A null score is left out. A signal with
        several spans is the mean of its scores.
        """
        inputs = {entry.path.split("/", maxsplit=1)[0]: entry for entry in shard.inputs}
        paths: dict[str, File] = {}
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
        yield from _documents(shard, signals, duplicates, paths["documents"])

    def size(self, shard: Shard) -> float:
        """Return the bytes of the documents file."""
        return float(shard.inputs[0].bytes if shard.inputs else 0)

    def read_head(self, shard: Shard) -> Head:
        """Return the records in the first bytes of the documents file."""
        entry = next((file for file in shard.inputs if file.path.startswith("documents/")), None)
        path = _path_inside(shard.root, entry) if entry else None
        if entry is None or path is None:
            return head_of_records(self.read(shard))
        return head_of_lines(path, entry.bytes, partial(_documents, shard, None, None))

    def side_files(self, shard: Shard) -> list[tuple[File, int]]:
        """Return the file of quality signals, if there is one."""
        return [
            (file_below(shard.root, entry.name), entry.bytes)
            for entry in shard.inputs
            if entry.path.startswith("quality_signals/")
        ]


def _key(tag: _Tag) -> str:
    snapshot, number, language, bucket = tag
    return f"{snapshot}/{number}/{language}_{bucket}"


def _tags(files: Files) -> list[_Tag]:
    matches = (_FILE_NAME.fullmatch(name) for name in files)
    return [(match[1], match[2], match[3], match[4]) for match in matches if match]


def _unread(
    root: Place,
    files: Files,
    tags: Sequence[_Tag],
    chosen: Sequence[_Tag],
    shards: Sequence[Shard],
) -> dict[str, list[str]]:
    """Return the files that no shard reads, by a key of `pipeline.source.unread.WHY`."""
    keys, chosen_keys = set(map(_key, tags)), set(map(_key, chosen))
    read = {entry.name for shard in shards for entry in (*shard.inputs, *shard.beside)}
    unread: dict[str, list[str]] = defaultdict(list)
    for name in files:
        if name in read or name.startswith("listings/") or name == "fetch.jsonl":
            continue
        if name.endswith(".part"):
            unread["incomplete"].append(name)
        elif match := _SIDE_FILE.fullmatch(name):
            key = next(filter(None, match.groups()))
            if key not in keys:
                reason = "no_documents"
            elif key in chosen_keys:
                reason = "outside_folder"
            else:
                reason = "not_chosen"
            unread[reason].append(name)
        elif isinstance(root, Path) and not Path(root, name).exists():
            unread["dangling_link"].append(name)
        else:
            unread["other_name"].append(name)
    return unread


def _missing(root: Place, files: Files, tags: Sequence[_Tag], chosen: Sequence[_Tag]) -> list[str]:
    """Return the files of the tree's listings that are not there. A download may be incomplete."""
    snapshots = {snapshot for snapshot, _, _, _ in chosen}
    languages = {language for _, _, language, _ in chosen}
    listed: set[str] = set()
    for name in files:
        folder, _, listing = name.partition("/")
        if folder != "listings":
            continue
        stem = listing.removesuffix(".txt").rsplit("-", maxsplit=1)[0]
        language, _, snapshot = stem.partition("-")
        if language in languages and snapshot in snapshots:
            with file_below(root, name).open("rb") as file:
                lines = file.read().decode("utf-8", "replace").splitlines()
            listed.update(line.strip() for line in lines if _LISTED.fullmatch(line.strip()))
    return sorted(listed - {_key(tag) for tag in tags})


def _shard(root: Place, key: str, files: Files, labels: Mapping[str, str]) -> Shard:
    inputs, beside = [], []
    for component, suffix in COMPONENT_SUFFIXES.items():
        name = f"{component}/{key}{suffix}"
        if name not in files:
            continue
        entry = describe_file(root, FoundFile(name, labels[name], files[name]))
        if component in _READ_COMPONENTS:
            inputs.append(entry)
        elif _path_inside(root, entry) is not None:
            beside.append(entry)
    return Shard(
        name=re.sub(r"[^A-Za-z0-9_-]", "_", key),
        kind="rpv2",
        root=root,
        key=inputs[0].path.removeprefix("documents/").removesuffix(COMPONENT_SUFFIXES["documents"]),
        inputs=tuple(inputs),
        beside=tuple(beside),
    )


def _path_inside(root: Place, entry: Input) -> File | None:
    if not isinstance(root, Path):
        return file_below(root, entry.name)  # stores have no links
    path = Path(os.path.realpath(Path(root, entry.name)))
    return path if path.is_relative_to(os.path.realpath(root)) else None


def _documents(
    shard: Shard, signals: QualitySignals | None, duplicates: set[int] | None, path: File
) -> Iterator[Document | Fault]:
    """Yield the records of a documents file. Without `signals`, they have only their own."""
    label = shard.inputs[0].path
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
        shipped = signals.take(row) if signals else {}
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
    if signals is None:
        return
    if beyond := sum(row > last for row in signals.rows):
        detail = f"{beyond} lines of quality signals are of rows after its last, {last}"
        yield Fault(label, None, "signals_unmatched", detail, counted=False, records=beyond)
    if rows_without_signals and not shard.key.endswith("_tail"):  # the tail ships no signals
        name = f"quality_signals/{shard.key}{COMPONENT_SUFFIXES['quality_signals']}"
        detail = f"{rows_without_signals} of {rows} documents have no quality signals"
        yield Fault(
            name, None, "signals_missing", detail, counted=False, records=rows_without_signals
        )
