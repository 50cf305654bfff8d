"""Targets: the specialised sets. Their documents are split for alignment, validation and test, and are never part of the corpus."""

import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pyarrow as pa

from data_catalog.errors import UserError
from data_catalog.format import tables
from pipeline.config import Build, Dataset, Target, Text
from pipeline.location import Place
from pipeline.source import dataset, jsonl, parquet, python_docs, text
from pipeline.source.documents import Document, Fault, document_number, unit_hash
from pipeline.source.files import find_files
from pipeline.source.stage import quarantine_table
from pipeline.source.stream import Stream, find_dataset, label_of, load_builder

logger = logging.getLogger(__name__)

RECORDS = (*jsonl.SUFFIXES, *parquet.SUFFIXES)
DOCUMENTS = pa.schema([tables.TARGET.field(name) for name in ("doc_id", "id_int", "text", "split")])
_Split = tuple[tuple[str, float], ...]  # each name with the hash below which it ends
THREE: _Split = (("align", 0.6), ("validation", 0.8), ("test", 1.0))
TWO: _Split = (("align", 0.8), ("validation", 1.0))


def check_targets(config: Build) -> None:
    """Refuse what is wrong with the targets before any work starts. Reads no documents.

    Raises:
        UserError: a name is used twice, a path is missing or has neither JSON lines, Parquet nor plain text, a data set cannot be found,
            modules are named of another kind of source.
    """
    if config.targets_below is not None and not config.targets_below.is_dir():
        raise UserError(
            f"targets_below {config.targets_below}: not a folder; each folder in it is to be a target"
        )
    targets = config.all_targets()
    names = [target.name for target in targets]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UserError(
            f"targets: {', '.join(twice)} named more than once; give each target a name of its own"
        )
    for target in targets:
        if target.path is not None:
            root, files = _files(target, config)
            for file in files:
                if file.lower().endswith(parquet.SUFFIXES):
                    parquet.check_columns(
                        root / file, target.columns, f"target {target.name}: columns.text"
                    )
        elif target.dataset is not None:
            find_dataset(target.dataset, f"target {target.name}: dataset.name")
        else:
            python_docs.check_target(target, config.source)


def read_target(target: Target, config: Build) -> tuple[pa.Table, pa.Table]:
    """The documents of a target (doc_id, id_int, text, split) and its quarantine (tables.QUARANTINE).

    JSON lines and Parquet: a file whose name starts with "test" is the test split, and the rest is align (80 %) or validation (20 %) by
    the hash of the document's id; without such a file, and for a data set, it is align, validation and test (60, 20 and 20 %). Plain text,
    where a path has no others: alike, but what is called `test`, a folder or a file but for its ending, is the test split. Text and
    modules: as near to these shares as whole files allow, so that all documents of one file share a split; of fewer than three text
    files, by document. A warning names a split that stays empty.

    Raises:
        UserError: the path is missing, or no document can be read, or none falls in `align`.
    """
    rows, faults = [], []
    taken: set[str] = set()
    for place, split, record in _first(_records(target, config), target.max_documents):
        if isinstance(record, Fault):
            faults.append(record)
            continue
        doc_id = record.doc_id if record.doc_id not in taken else f"{record.doc_id}@{place}"
        taken.add(doc_id)
        name = split if isinstance(split, str) else _by_hash(split, doc_id)
        rows.append(
            {
                "doc_id": doc_id,
                "id_int": document_number(doc_id),
                "text": record.text,
                "split": name,
            }
        )
    if not rows:
        reasons = ", ".join(sorted({fault.reason for fault in faults}))
        hint = f"{len(faults)} records cannot be read ({reasons})" if faults else _nothing(target)
        raise UserError(f"target {target.name}: no readable document in {_origin(target)}; {hint}")
    filled = {row["split"] for row in rows}
    for name in ("validation", "test"):
        if name not in filled:
            logger.warning(
                "target %s: no document falls in its %s split; give it more documents or files",
                target.name,
                name,
            )
    if "align" not in filled:
        raise UserError(
            f"target {target.name}: none of its {len(rows)} documents falls in the align split, which weights are made from; give more"
        )
    return pa.Table.from_pylist(rows, schema=DOCUMENTS), quarantine_table(faults)


def _nothing(target: Target) -> str:
    if not target.modules:
        return "its files hold no records"
    return "name modules with more files, or raise source.held_out_share, the share of their files that becomes the target"


def _by_hash(parts: _Split, doc_id: str) -> str:
    number = unit_hash("target split", doc_id)
    return next(name for name, end in parts if number < end)


def _origin(target: Target) -> str:
    return str(
        target.path or (target.dataset.name if target.dataset else ", ".join(target.modules))
    )


_Placed = tuple[
    str, str | _Split, Document | Fault
]  # a place that is the record's own; its split, or those a hash of its id chooses from


def _records(target: Target, config: Build) -> Iterator[_Placed]:
    if target.path is not None:
        return _from_files(target, config)
    return (
        _from_dataset(target.dataset)
        if target.dataset is not None
        else _from_modules(target, config)
    )


def _first(records: Iterator[_Placed], documents: int | None) -> Iterator[_Placed]:
    """Records up to the given number of documents; faults are not counted."""
    left = documents
    for record in records:
        if left == 0:
            return
        if left is not None and isinstance(record[2], Document):
            left -= 1
        yield record


def _files(target: Target, config: Build) -> tuple[Place, list[str]]:
    """Its JSON lines and Parquet; where there are none, its text: a folder of records often has a README."""
    path, name = target.path or Path(), f"target {target.name}: path"
    endings = text.suffixes(_as_text(config))
    root, files = find_files(path, (*RECORDS, *endings), name, "JSON lines, Parquet or plain text")
    if records := [file for file in files if file.lower().endswith(RECORDS)]:
        return root, records
    root, files = text.find_text(path, endings, name)
    return root, list(files)


def _as_text(config: Build) -> Text:
    """How text is read: as the corpus is, if that is text."""
    return config.source if isinstance(config.source, Text) else Text(kind="text", path=Path())


def _from_files(target: Target, config: Build) -> Iterator[_Placed]:
    root, files = _files(target, config)
    if not files[0].lower().endswith(RECORDS):
        yield from _from_text(root, files, config)
        return
    tests = {file for file in files if file.rpartition("/")[2].startswith("test")}
    for label in files:
        split = "test" if label in tests else TWO if tests else THREE
        reader = parquet if label.lower().endswith(parquet.SUFFIXES) else jsonl
        for number, record in enumerate(reader.read_file(root / label, label, target.columns)):
            yield f"{label}/{number}", split, record


def _from_text(root: Place, files: Sequence[str], config: Build) -> Iterator[_Placed]:
    most = _as_text(config).piece_characters
    records = [(file, record) for file in files for record in text.read_file(root, file, most)]
    tests = {
        file for file in files if "test" in (part.partition(".")[0] for part in file.split("/"))
    }
    rest = [(file, record) for file, record in records if file not in tests]
    whole = len({file for file, record in rest if isinstance(record, Document)}) >= len(THREE)
    places = [file if whole else f"{file}/{number}" for number, (file, _) in enumerate(rest)]
    pairs = zip(places, rest, strict=True)
    splits = by_file(
        Counter(place for place, (_, record) in pairs if isinstance(record, Document)),
        TWO if tests else THREE,
    )
    for place, (_, record) in zip(places, rest, strict=True):
        yield place, splits.get(place, "align"), record
    for file, record in records:
        if file in tests:
            yield file, "test", record


def _from_dataset(source: Dataset) -> Iterator[_Placed]:
    """A split of the data set, whatever it is called: the target's own splits are made from it."""
    label = label_of(source)
    stream = Stream(lambda: load_builder(source).as_streaming_dataset(split=source.split))
    for number, record in enumerate(dataset.to_documents(stream, source, label)):
        yield f"{label}/{number}", THREE, record


def _from_modules(target: Target, config: Build) -> Iterator[_Placed]:
    records = list(python_docs.read_target(target, config))
    splits = by_file(Counter(module for module, _ in records))
    for number, (module, record) in enumerate(records):
        yield str(number), splits[module], record


def by_file(documents: Mapping[str, int], parts: _Split = THREE) -> dict[str, str]:
    """A split for each file, from its number of documents: the largest first, each where the most documents are still missing.

    The last files go where there is none yet. A hash of the file's name would leave splits empty: a few files often hold most documents.
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
        among = empty if len(empty) >= len(documents) - len(splits) else missing
        splits[file] = max(among, key=lambda name: missing[name])
        missing[splits[file]] -= documents[file]
    return splits
