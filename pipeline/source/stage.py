"""The first stage: find the pieces of the input, and turn each into a table of documents and a table of what could not be read."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from data_catalog.format import tables
from data_catalog.format.accounts import Account, Tally
from data_catalog.format.columns import SIGNALS_TYPE
from data_catalog.format.manifest import fingerprint
from pipeline.config import Build, Columns, Dataset, Jsonl, Parquet, PythonDocs, Rpv2, Text
from pipeline.location import Place
from pipeline.parts import Part, make_part
from pipeline.source import dataset, jsonl, parquet, python_docs, rpv2, text
from pipeline.source.documents import Document, Fault, Shard, document_number, text_digest

VERSION = 2
DOCUMENTS = "documents.parquet"
QUARANTINE = "quarantine.parquet"
CONTENT = "clustermix.content"  # key of the file's metadata: its documents and their texts, hashed
_GROUP_ROWS = 1_024
_GROUP_CHARACTERS = 16_000_000  # a group of huge documents is written early: memory stays bounded


def plan(config: Build) -> list[Shard]:
    """The pieces of the input, always in the same order, each with a name of its own and the identity of its files.

    Raises:
        UserError: the path is missing or holds no documents, or a filter leaves nothing.
    """
    match config.source:
        case Rpv2():
            return rpv2.plan(config.source)
        case Jsonl():
            return jsonl.plan(config.source, _held_out(config))
        case Parquet():
            return parquet.plan(config.source, _held_out(config))
        case Text():
            return text.plan(config.source, _held_out(config))
        case Dataset():
            return dataset.plan(config.source)
        case PythonDocs():
            return python_docs.plan(config.source)


def _held_out(config: Build) -> list[Place]:
    """Where the targets' files are."""
    places = (config.targets_below, *(target.path for target in config.targets))
    return [place for place in places if place is not None]


def read_shard(shard: Shard, folder: Path, config: Build) -> Part:
    """Write `documents.parquet` (tables.SOURCE) and `quarantine.parquet` (tables.QUARANTINE).

    A broken file never stops the build: what was readable is kept, the rest is one entry of the quarantine and one failed row.
    Entries named `signals_*` and `duplicates_*` are about side files: no document is lost by them, so they are not in the account.
    """
    made_from = fingerprint("source", VERSION, shard.identity(), _choices(config))
    return make_part(folder, made_from, lambda temporary: _write(_read(shard, config), temporary))


def _choices(config: Build) -> list[object]:
    """What, beside the shard, decides which documents it gives."""
    match config.source:
        case PythonDocs():
            return [
                config.source.min_characters,
                config.source.held_out_share,
                python_docs.held_modules(config),
            ]
        case Jsonl(columns=columns) | Parquet(columns=columns) | Dataset(columns=columns):
            return [columns] if columns != Columns() else []
        case Text(piece_characters=most):
            return [most]
        case Rpv2():
            return []


def _read(shard: Shard, config: Build) -> Iterator[Document | Fault]:
    match config.source:
        case Rpv2():
            return rpv2.read(shard)
        case Jsonl():
            return jsonl.read(shard, config.source.columns)
        case Parquet():
            return parquet.read(shard, config.source.columns)
        case Text():
            return text.read(shard, config.source.piece_characters)
        case Dataset():
            return dataset.read(shard, config.source)
        case PythonDocs():
            return python_docs.read(shard, config.source, python_docs.held_modules(config))


def _write(records: Iterable[Document | Fault], folder: Path) -> Account:
    rows: Counter[str] = Counter()
    characters: Counter[str] = Counter()
    faults: list[Fault] = []
    group: list[Document] = []
    waiting = 0
    kept = Tally()
    content = hashlib.sha256()

    def write(writer: pq.ParquetWriter, group: list[Document]) -> Tally:
        table = source_table(group)
        for column in ("doc_id", "digest"):
            content.update("\0".join(table[column].to_pylist()).encode())
        writer.write_table(table)
        return Tally(rows=len(group), characters=sum(len(document.text) for document in group))

    with pq.ParquetWriter(folder / DOCUMENTS, tables.SOURCE, compression="zstd") as writer:
        for record in records:
            if isinstance(record, Fault):
                faults.append(record)
                if record.counted:
                    rows[record.reason] += 1
                    characters[record.reason] += record.characters
                continue
            group.append(record)
            waiting += len(record.text)
            if len(group) == _GROUP_ROWS or waiting >= _GROUP_CHARACTERS:
                kept += write(writer, group)
                group, waiting = [], 0
        if group:
            kept += write(writer, group)
        writer.add_key_value_metadata({CONTENT: content.hexdigest()})
    pq.write_table(quarantine_table(faults), folder / QUARANTINE, compression="zstd")
    failed = {
        reason: Tally(rows=rows[reason], characters=characters[reason]) for reason in sorted(rows)
    }
    return Account(read=sum(failed.values(), kept), kept=kept, failed=failed)


def source_table(documents: list[Document]) -> pa.Table:
    """The documents as tables.SOURCE, with the number of each and the digest of its text."""
    ends = [0]
    for document in documents:
        ends.append(ends[-1] + len(document.signals))
    signals = pa.MapArray.from_arrays(
        pa.array(ends, pa.int32()),
        pa.array(
            list(chain.from_iterable(document.signals for document in documents)), pa.string()
        ),
        pa.array(
            list(chain.from_iterable(document.signals.values() for document in documents)),
            pa.float64(),
        ),
    )
    columns = [
        pa.array([document.doc_id for document in documents], pa.string()),
        pa.array([document_number(document.doc_id) for document in documents], pa.uint64()),
        pa.array([document.url for document in documents], pa.string()),
        pa.array([document.source for document in documents], pa.string()),
        pa.array([document.language for document in documents], pa.string()),
        pa.array([text_digest(document.text) for document in documents], pa.string()),
        pa.array([document.text for document in documents], pa.large_string()),
        signals.cast(SIGNALS_TYPE),
        pa.array([document.shipped_duplicate for document in documents], pa.bool_()),
    ]
    return pa.Table.from_arrays(columns, schema=tables.SOURCE)


def quarantine_table(faults: list[Fault]) -> pa.Table:
    """The faults as tables.QUARANTINE; `row` is null for a whole file."""
    rows = [
        {"file": fault.file, "row": fault.row, "reason": fault.reason, "detail": fault.detail}
        for fault in faults
    ]
    return pa.Table.from_pylist(rows, schema=tables.QUARANTINE)
