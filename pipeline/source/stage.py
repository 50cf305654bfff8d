"""The first stage: write each shard as a table of documents and a table of unreadable records."""

import hashlib
from array import array
from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data_catalog.format import tables
from data_catalog.format.accounts import Account, Tally
from data_catalog.format.columns import SIGNALS_TYPE
from data_catalog.format.manifest import fingerprint
from data_catalog.place import Folder
from pipeline.parts import Part, make_part
from pipeline.source.documents import Document, Fault, Shard, document_number, text_digest
from pipeline.source.interface import Source

# Versions of the output:
# 1: the first layout.
# 2: the file's metadata holds a hash of its documents.
# 3: numbers are ids, files are unpacked by their content, and notes are counted.
VERSION = 3
DOCUMENTS_FILE = "documents.parquet"
QUARANTINE_FILE = "quarantine.parquet"
# Key of the documents file's metadata: a hash of the ids and the texts.
CONTENT_KEY = "clustermix.content"
_FILE_KEY = "clustermix.file"  # another: the file that was read, the first of several
_GROUP_ROWS = 1_024
_GROUP_CHARACTERS = 16_000_000  # a row group of huge documents ends early, to bound memory


def read_shard(shard: Shard, folder: Folder, source: Source[Any]) -> Part:
    """Write `documents.parquet` (tables.SOURCE) and `quarantine.parquet` (tables.QUARANTINE).

    A broken file never stops the build. Its readable records are kept, and the rest is one row of
    the quarantine. The account counts the documents that it loses, or one if their number is not
    known. Notes lose no document. The account counts them apart, as `noted`.

    Args:
        shard: The shard to read.
        folder: Folder of the part.
        source: The source that planned the shard.

    Returns:
        The part, which is kept if its fingerprint has not changed.
    """
    made_from = fingerprint("source", VERSION, shard.identity(), source.choices())
    return make_part(
        folder, made_from, lambda temporary: _write(source.read(shard), shard.key, temporary)
    )


def _write(records: Iterable[Document | Fault], key: str, folder: Path) -> Account:
    faults: list[Fault] = []
    numbers = array("Q")
    group: list[Document] = []
    group_characters = 0
    kept = Tally()
    content = hashlib.sha256()

    def write(writer: pq.ParquetWriter, group: list[Document]) -> Tally:
        table = source_table(group)
        for column in ("doc_id", "digest"):
            content.update("\0".join(table[column].to_pylist()).encode())
        numbers.extend(table["id_int"].to_pylist())
        writer.write_table(table)
        return Tally(rows=len(group), characters=sum(len(document.text) for document in group))

    with pq.ParquetWriter(folder / DOCUMENTS_FILE, tables.SOURCE, compression="zstd") as writer:
        for record in records:
            if isinstance(record, Fault):
                faults.append(record)
                continue
            group.append(record)
            group_characters += len(record.text)
            if len(group) == _GROUP_ROWS or group_characters >= _GROUP_CHARACTERS:
                kept += write(writer, group)
                group, group_characters = [], 0
        if group:
            kept += write(writer, group)
        writer.add_key_value_metadata({CONTENT_KEY: content.hexdigest(), _FILE_KEY: key})
    if repeated := len(numbers) - len(np.unique(np.frombuffer(numbers, np.uint64))):
        detail = f"{repeated} of {len(numbers)} documents have the id of an earlier one"
        faults.append(Fault(key, None, "repeated_id", detail, counted=False, records=repeated))
    if not faults and not kept.rows:
        faults.append(Fault(key, None, "no_records", "the file has no records", counted=False))
    pq.write_table(quarantine_table(faults), folder / QUARANTINE_FILE, compression="zstd")
    return account_of(kept, faults)


def account_of(kept: Tally, faults: Iterable[Fault]) -> Account:
    """Return the account of documents that were kept and of faults and notes."""
    failed: dict[str, Tally] = {}
    noted: dict[str, Tally] = {}
    for fault in faults:
        sums = failed if fault.counted else noted
        tally = Tally(rows=fault.records, characters=fault.characters)
        sums[fault.reason] = sums.get(fault.reason, Tally()) + tally
    return Account(
        read=sum(failed.values(), kept),
        kept=kept,
        failed=dict(sorted(failed.items())),
        noted=dict(sorted(noted.items())),
    )


def source_file(part: Part) -> str:
    """Return the name of the file that a source part was read from, the first of several."""
    metadata = pq.read_metadata(part.readable(DOCUMENTS_FILE)).metadata or {}
    return metadata.get(_FILE_KEY.encode(), part.name.encode()).decode()


def source_table(documents: list[Document]) -> pa.Table:
    """Return the documents as tables.SOURCE, with the number and the text digest of each."""
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


def quarantine_table(faults: Iterable[Fault], stage: str = "source") -> pa.Table:
    """Return the faults of a stage as tables.QUARANTINE. `row` is null for a whole file."""
    columns = ("file", "row", "reason", "detail", "doc_id")
    rows = [
        {**{name: getattr(fault, name) for name in columns}, "stage": stage} for fault in faults
    ]
    return pa.Table.from_pylist(rows, schema=tables.QUARANTINE)
