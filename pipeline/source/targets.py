"""Targets: specialised sets. Their documents are split and are never part of the corpus."""

import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from data_catalog.errors import UserError
from data_catalog.format import tables
from pipeline.config import Build
from pipeline.grams import family_numbers
from pipeline.location import file_below, folder_names
from pipeline.source.config import AnySource, Dataset, Target, Text
from pipeline.source.dataset import stream_documents
from pipeline.source.documents import Document, Fault, document_number, unit_hash
from pipeline.source.files import Found, escaped_name, find_files
from pipeline.source.jsonl import JSONL_SUFFIXES, read_json_lines
from pipeline.source.parquet import PARQUET_SUFFIXES, check_columns, read_parquet
from pipeline.source.python_docs import check_modules, read_modules
from pipeline.source.stream import Stream, dataset_label, find_dataset, load_builder
from pipeline.source.text import find_text, read_text, text_suffixes
from pipeline.source.unread import unread_notes

logger = logging.getLogger(__name__)

TARGET_DOCUMENTS = pa.schema(
    [tables.TARGET.field(name) for name in ("doc_id", "id_int", "text", "split")]
)
_RECORD_SUFFIXES = (*JSONL_SUFFIXES, *PARQUET_SUFFIXES)
_SURE_RECORD_SUFFIXES = tuple(
    suffix for suffix in _RECORD_SUFFIXES if "json" not in suffix.split(".")
)
_Splits = tuple[tuple[str, float], ...]  # each name with the hash below which it ends
_THREE_SPLITS: _Splits = (("align", 0.6), ("validation", 0.8), ("test", 1.0))
_TWO_SPLITS: _Splits = (("align", 0.8), ("validation", 1.0))


def check_targets(config: Build) -> None:
    """Check all targets of a build before any work starts. Files are read up to a first document.

    Raises:
        UserError: A name is used twice, a path is missing or has no readable document, a dataset
            cannot be found, or a target names modules of a source of another kind.
    """
    if config.targets_below is not None and not config.targets_below.is_dir():
        raise UserError(
            f"targets_below {config.targets_below}: this is not a folder. "
            "Give a folder in which each folder is a target."
        )
    targets = config.all_targets()
    names = [target.name for target in targets]
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise UserError(
            f"targets: the name {', '.join(repeated)} is used more than once. "
            "Give each target a name of its own."
        )
    for target in targets:
        if target.path is not None:
            found = _files(target, config.source)
            for file in found.files:
                if file.name.lower().endswith(PARQUET_SUFFIXES):
                    path = file_below(found.root, file.name)
                    check_columns(path, target.columns, f"target {target.name}: columns")
            records = [record for _, _, record in _first(_records(target, config.source), 1)]
            _check_readable(target, records)
        elif target.dataset is not None:
            find_dataset(target.dataset, f"target {target.name}: dataset.name")
        else:
            check_modules(target, config.source)


def skipped_targets(config: Build) -> list[Fault]:
    """Return a note on the hidden folders of `targets_below`, which are no targets."""
    if config.targets_below is None:
        return []
    names = folder_names(config.targets_below)
    hidden = [escaped_name(name) for name in names if name.startswith((".", "_"))]
    return unread_notes({"hidden": hidden})


def read_target(target: Target, source: AnySource) -> tuple[pa.Table, list[Fault]]:
    """Read a target and split its documents.

    - JSON lines and Parquet: a file whose name starts with `test` is the test split. The rest is
      align (80 %) or validation (20 %) by the hash of the document's id. Without such a file, and
      for a dataset, the splits are align, validation and test (60, 20 and 20 %).
    - Plain text, for a path without other files: alike, but a file is in the test split if its
      name without the ending, or that of one of its folders, is `test`.
    - Text and modules: the splits come as close to these shares as whole files allow, so that all
      documents of a file share a split. Fewer than three text files are split by document.

    Documents that share passages stay together: all of a family (`family_numbers`) get the split of
    its first by id. Documents of test files stay there and join no family. A warning names a
    split that stays empty, and a target whose families would leave a split empty, which is split
    regardless of them.

    Args:
        target: The target.
        source: The build's section `source`. Modules are held out, and text is read as it is
            there.

    Returns:
        The documents (TARGET_DOCUMENTS), and the faults and notes.

    Raises:
        UserError: The path is missing, no document can be read, or none falls in `align`.
    """
    rows, free, faults = [], [], []
    seen_ids: set[str] = set()
    for place, split, record in _first(_records(target, source), target.max_documents):
        if isinstance(record, Fault):
            faults.append(record)
            continue
        doc_id = record.doc_id if record.doc_id not in seen_ids else f"{record.doc_id}@{place}"
        seen_ids.add(doc_id)
        row = {
            "doc_id": doc_id,
            "id_int": document_number(doc_id),
            "text": record.text,
            "split": split if isinstance(split, str) else _by_hash(split, doc_id),
        }
        rows.append(row)
        if not isinstance(split, str):
            free.append(row)
    if not rows:
        _check_readable(target, faults)
    _keep_families_together(free, target.name)
    splits = {row["split"] for row in rows}
    for name in ("validation", "test"):
        if name not in splits:
            logger.warning(
                "target %s: the %s split is empty. Give the target more documents or files.",
                target.name,
                name,
            )
    if "align" not in splits:
        raise UserError(
            f"target {target.name}: none of its {len(rows)} documents falls in the align split, "
            "from which weights are made. Give the target more documents."
        )
    if target.path is not None:
        faults += _files(target, source).notes()
    return pa.Table.from_pylist(rows, schema=TARGET_DOCUMENTS), faults


def _keep_families_together(rows: Sequence[dict[str, Any]], name: str) -> None:
    """Change `split` of rows to that of the first of their family by `doc_id`.

    Nothing is changed, with a warning, if a split would become empty.
    """
    families = family_numbers([row["text"] for row in rows]).tolist()
    order = sorted(range(len(rows)), key=lambda i: rows[i]["doc_id"], reverse=True)
    split_of = {families[i]: rows[i]["split"] for i in order}  # the first by id comes last
    if lost := {row["split"] for row in rows} - {*split_of.values()}:
        logger.warning(
            "target %s: many of its documents share passages. If they stayed together, the %s "
            "split would be empty, so they are split one by one. The view leakage shows the "
            "documents concerned.",
            name,
            " and the ".join(sorted(lost)),
        )
        return
    for row, family in zip(rows, families, strict=True):
        row["split"] = split_of[family]


def _check_readable(target: Target, records: Sequence[Document | Fault]) -> None:
    if any(isinstance(record, Document) for record in records):
        return
    lost = [record for record in records if isinstance(record, Fault) and record.counted]
    reasons = ", ".join(sorted({fault.reason for fault in lost}))
    hint = (
        f"Its {len(lost)} records cannot be read ({reasons}). Mend them."
        if lost
        else _hint_if_empty(target)
    )
    raise UserError(
        f"target {target.name}: there is no readable document in {_origin(target)}. {hint}"
    )


def _hint_if_empty(target: Target) -> str:
    if not target.modules:
        return "Its files have no records. Give files that have some."
    return (
        "Name modules with more files, or raise source.held_out_share, the share of their files "
        "that becomes the target."
    )


def _by_hash(parts: _Splits, doc_id: str) -> str:
    number = unit_hash("target split", doc_id)
    return next(name for name, end in parts if number < end)


def _origin(target: Target) -> str:
    return str(
        target.path or (target.dataset.name if target.dataset else ", ".join(target.modules))
    )


# The record's place, its split, and the record. A name is a split that the target's files give. Of
# several splits, a hash of the document's id chooses one, and families may change it.
_Placed = tuple[str, str | _Splits, Document | Fault]


def _records(target: Target, source: AnySource) -> Iterator[_Placed]:
    if target.path is not None:
        return _from_files(target, source)
    if target.dataset is not None:
        return _from_dataset(target.dataset)
    return _from_modules(target, source)


def _first(records: Iterator[_Placed], documents: int | None) -> Iterator[_Placed]:
    """Yield records up to a maximum number of documents. Faults are not counted."""
    left = documents
    for record in records:
        if left == 0:
            return
        if left is not None and isinstance(record[2], Document):
            left -= 1
        yield record


def _files(target: Target, source: AnySource) -> Found:
    """Return the target's JSON lines and Parquet files, or its text files if it has no others.

    A folder of records often has a README, and a folder of text a file of metadata (`.json`).
    """
    path, key = target.path or Path(), f"target {target.name}: path"
    endings = text_suffixes(_text_section(source))
    found = find_files(
        path, (*_RECORD_SUFFIXES, *endings), key, "JSON lines, Parquet or plain text"
    )
    has_text = any(file.name.lower().endswith(endings) for file in found.files)
    choice = _SURE_RECORD_SUFFIXES if has_text else _RECORD_SUFFIXES
    if any(file.name.lower().endswith(choice) for file in found.files):
        return find_files(path, _RECORD_SUFFIXES, key, "JSON lines or Parquet")
    return find_text(path, endings, key)


def _text_section(source: AnySource) -> Text:
    """Return the settings for text: those of the corpus if it is text, else the defaults."""
    return source if isinstance(source, Text) else Text(kind="text", path=Path())


def _from_files(target: Target, source: AnySource) -> Iterator[_Placed]:
    found = _files(target, source)
    if not found.files[0].name.lower().endswith(_RECORD_SUFFIXES):
        yield from _from_text(found, _text_section(source).piece_characters)
        return
    labels = [file.label for file in found.files]
    tests = {label for label in labels if label.rpartition("/")[2].startswith("test")}
    for file in found.files:
        label = file.label
        split = "test" if label in tests else _TWO_SPLITS if tests else _THREE_SPLITS
        read = read_parquet if label.lower().endswith(PARQUET_SUFFIXES) else read_json_lines
        records = read(file_below(found.root, file.name), label, target.columns)
        for number, record in enumerate(records):
            yield f"{label}/{number}", split, record


def _from_text(found: Found, piece_characters: int) -> Iterator[_Placed]:
    records = [
        (file.label, record)
        for file in found.files
        for record in read_text(found.root, file.name, file.label, piece_characters)
    ]
    tests = {
        label
        for label, _ in records
        if "test" in (part.partition(".")[0] for part in label.split("/"))
    }
    rest = [(file, record) for file, record in records if file not in tests]
    readable = {file for file, record in rest if isinstance(record, Document)}
    by_whole_file = len(readable) >= len(_THREE_SPLITS)
    places = [
        file if by_whole_file else f"{file}/{number}" for number, (file, _) in enumerate(rest)
    ]
    pairs = zip(places, rest, strict=True)
    splits = split_files(
        Counter(place for place, (_, record) in pairs if isinstance(record, Document)),
        _TWO_SPLITS if tests else _THREE_SPLITS,
    )
    for place, (_, record) in zip(places, rest, strict=True):
        yield place, _only(splits.get(place, "align")), record
    for file, record in records:
        if file in tests:
            yield file, "test", record


def _from_dataset(source: Dataset) -> Iterator[_Placed]:
    """Yield one split of the dataset. The target's own splits are made from it."""
    label = dataset_label(source)
    stream = Stream(lambda: load_builder(source).as_streaming_dataset(split=source.split))
    for number, record in enumerate(stream_documents(stream, source, label)):
        yield f"{label}/{number}", _THREE_SPLITS, record


def _from_modules(target: Target, source: AnySource) -> Iterator[_Placed]:
    records = list(read_modules(target, source))
    splits = split_files(Counter(module for module, _ in records))
    for number, (module, record) in enumerate(records):
        yield str(number), _only(splits[module]), record


def _only(split: str) -> _Splits:
    return ((split, 1.0),)


def split_files(documents: Mapping[str, int], parts: _Splits = _THREE_SPLITS) -> dict[str, str]:
    """Return a split for each file, from the number of documents in each file.

    The largest file comes first, and each goes to the split that lacks the most documents. The
    last files go to splits that are still empty. A hash of the name would leave splits empty,
    since a few files often hold most documents.
    """
    ends = [0.0, *(end for _, end in parts)]
    missing = {
        name: (ends[i + 1] - ends[i]) * sum(documents.values()) for i, (name, _) in enumerate(parts)
    }
    splits: dict[str, str] = {}
    for file in sorted(
        documents, key=lambda file: (-documents[file], unit_hash("target split", file))
    ):
        empty = [name for name in missing if name not in splits.values()]
        candidates = empty if len(empty) >= len(documents) - len(splits) else missing
        splits[file] = max(candidates, key=lambda name: missing[name])
        missing[splits[file]] -= documents[file]
    return splits
