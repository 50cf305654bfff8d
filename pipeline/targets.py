"""Targets: the specialised sets. Their documents are split for alignment, validation and test, and are never part of the corpus."""

import logging
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

import pyarrow as pa

from data_catalog import tables
from data_catalog.errors import UserError
from pipeline.config import Build, Target
from pipeline.source import quarantine_table
from pipeline.sources import jsonl, python_docs
from pipeline.sources.documents import Document, Fault, document_number, unit_hash

logger = logging.getLogger(__name__)

DOCUMENTS = pa.schema([tables.TARGET.field(name) for name in ("doc_id", "id_int", "text", "split")])
_Split = tuple[tuple[str, float], ...]  # each name with the hash below which it ends
THREE: _Split = (("align", 0.6), ("validation", 0.8), ("test", 1.0))
TWO: _Split = (("align", 0.8), ("validation", 1.0))


def check_targets(config: Build) -> None:
    """Refuse what is wrong with the targets before any work starts. Reads no documents.

    Raises:
        UserError: a name is used twice, a path is missing or has no JSON lines, modules are named of another kind of source.
    """
    if config.targets_below is not None and not config.targets_below.is_dir():
        raise UserError(f"targets_below {config.targets_below}: not a folder; each folder in it is to be a target")
    targets = config.all_targets()
    names = [target.name for target in targets]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UserError(f"targets: {', '.join(twice)} named more than once; give each target a name of its own")
    for target in targets:
        if target.path is not None:
            jsonl.find_files(target.path, f"target {target.name}: path")
        else:
            python_docs.check_target(target, config.source)


def read_target(target: Target, config: Build) -> tuple[pa.Table, pa.Table]:
    """The documents of a target (doc_id, id_int, text, split) and its quarantine (tables.QUARANTINE).

    JSON lines: a file whose name starts with "test" is the test split, and the rest is align (80 %) or validation (20 %) by the hash
    of the document's id; without such a file it is align, validation and test (60, 20 and 20 %). Modules: as near to 60, 20 and 20 % as
    whole files allow, so that all documents of one file share a split. A warning names a split that stays empty.

    Raises:
        UserError: the path is missing, or no document can be read, or none falls in `align`.
    """
    rows, faults = [], []
    taken: set[str] = set()
    for place, split, record in _from_files(target) if target.path else _from_modules(target, config):
        if isinstance(record, Fault):
            faults.append(record)
            continue
        doc_id = record.doc_id if record.doc_id not in taken else f"{record.doc_id}@{place}"
        taken.add(doc_id)
        name = split if isinstance(split, str) else _by_hash(split, doc_id)
        rows.append({"doc_id": doc_id, "id_int": document_number(doc_id), "text": record.text, "split": name})
    if not rows:
        reasons = ", ".join(sorted({fault.reason for fault in faults}))
        hint = f"{len(faults)} records cannot be read ({reasons})" if faults else _nothing(target)
        raise UserError(f"target {target.name}: no readable document in {target.path or ', '.join(target.modules)}; {hint}")
    filled = {row["split"] for row in rows}
    for name in ("validation", "test"):
        if name not in filled:
            logger.warning("target %s: no document falls in its %s split; give it more documents or files", target.name, name)
    if "align" not in filled:
        raise UserError(
            f"target {target.name}: none of its {len(rows)} documents falls in the align split, which weights are made from; give more"
        )
    return pa.Table.from_pylist(rows, schema=DOCUMENTS), quarantine_table(faults)


def _nothing(target: Target) -> str:
    if target.path:
        return "its files hold no records"
    return "name modules with more files, or raise source.held_out_share, the share of their files that becomes the target"


def _by_hash(parts: _Split, doc_id: str) -> str:
    number = unit_hash("target split", doc_id)
    return next(name for name, end in parts if number < end)


def _from_files(target: Target) -> Iterator[tuple[str, str | _Split, Document | Fault]]:
    """Each record with a place that is its own, and its split or those that the hash of its id chooses from."""
    root, files = jsonl.find_files(target.path or Path(), f"target {target.name}: path")
    tests = {file for file in files if file.name.startswith("test")}
    for file in files:
        label = file.relative_to(root).as_posix()
        split = "test" if file in tests else TWO if tests else THREE
        for number, record in enumerate(jsonl.read_file(file, label)):
            yield f"{label}/{number}", split, record


def _from_modules(target: Target, config: Build) -> Iterator[tuple[str, str, Document | Fault]]:
    records = list(python_docs.read_target(target, config))
    splits = by_file(Counter(module for module, _ in records))
    for number, (module, record) in enumerate(records):
        yield str(number), splits[module], record


def by_file(documents: Mapping[str, int]) -> dict[str, str]:
    """A split for each file, from its number of documents: the largest first, each where the most documents are still missing.

    A hash of the file's name would leave splits empty: a few files often hold most documents.
    """
    ends = [0.0, *(end for _, end in THREE)]
    missing = {name: (ends[i + 1] - ends[i]) * sum(documents.values()) for i, (name, _) in enumerate(THREE)}
    splits = {}
    for file in sorted(documents, key=lambda file: (-documents[file], unit_hash("target split", file))):
        splits[file] = max(missing, key=lambda name: missing[name])
        missing[splits[file]] -= documents[file]
    return splits
