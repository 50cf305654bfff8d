"""JSON lines with a `text` key and, if there, `id`, `url`, `source` and `language`: one shard a file."""

import hashlib
import logging
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from data_catalog.errors import UserError
from pipeline.config import Jsonl
from pipeline.sources.documents import Document, Fault, Shard, describe, encodable
from pipeline.sources.lines import read_records, text_fault

logger = logging.getLogger(__name__)

SUFFIXES = (".jsonl", ".jsonl.gz")


def plan(source: Jsonl, held_out: Sequence[Path] = ()) -> list[Shard]:
    """One shard per file, ordered by path. Files at or below a `held_out` path (the targets') are left out, with a warning.

    Raises:
        UserError: nothing is at the path, or no file of JSON lines.
    """
    root, files = find_files(source.path, "source.path")
    targets = [path.resolve() for path in held_out]
    kept = [file for file in files if not any(file.resolve().is_relative_to(target) for target in targets)]
    if len(kept) < len(files):
        logger.warning("%s: %d of %d files belong to targets and are not read", source.path, len(files) - len(kept), len(files))
    if not kept:
        raise UserError(f"source.path {source.path}: all its {len(files)} files belong to targets; nothing is left for the corpus")
    return [_shard(root, file) for file in kept]


def find_files(path: Path, name: str) -> tuple[Path, list[Path]]:
    """The folder that paths are told from, and the files of JSON lines at or below `path`, sorted. `name` is for errors.

    Raises:
        UserError: nothing is at the path, or no file of JSON lines.
    """
    if path.is_file():
        if not path.name.endswith(SUFFIXES):
            raise UserError(f"{name} {path}: expected a file named *.jsonl or *.jsonl.gz, or a folder of them")
        return path.parent, [path]
    if not path.is_dir():
        raise UserError(f"{name} {path}: does not exist; give a file of JSON lines or a folder of them")
    files = sorted(file for file in path.rglob("*") if file.name.endswith(SUFFIXES) and file.is_file())
    if not files:
        raise UserError(f"{name} {path}: holds no file named *.jsonl or *.jsonl.gz")
    return path, files


def _shard(root: Path, file: Path) -> Shard:
    entry = describe(root, file)
    stem = entry.path.removesuffix(".gz").removesuffix(".jsonl")
    name = re.sub(r"[^A-Za-z0-9-]+", "_", stem)[-80:]
    if name != stem or file.name.endswith(".gz"):  # two files must not share a name
        name += "-" + hashlib.blake2b(entry.path.encode(), digest_size=4).hexdigest()
    return Shard(name=name, kind="jsonl", root=root, key=entry.path, inputs=(entry,))


def read(shard: Shard) -> Iterator[Document | Fault]:
    """Every record of one file, in file order; see `read_file`."""
    return read_file(shard.root / shard.key, shard.key)


def read_file(path: Path, label: str) -> Iterator[Document | Fault]:
    """Every record of a file. `doc_id` is the record's `id` if that is a string with something in it, else `label/ROW`."""
    for item in read_records(path, label):
        if isinstance(item, Fault):
            yield item
            continue
        row, record = item
        text = record.get("text")
        if fault := text_fault(text, label, row, "text"):
            yield fault
            continue
        yield Document(
            doc_id=encodable(record.get("id")) or f"{label}/{row}",
            text=str(text),
            url=encodable(record.get("url")),
            source=encodable(record.get("source")) or label.removesuffix(".gz").removesuffix(".jsonl"),
            language=encodable(record.get("language")),
        )
