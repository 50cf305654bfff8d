"""Read a planted corpus as plan and build do, and compare what they say with what was planted."""

from collections import Counter
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from pydantic import TypeAdapter

from data_catalog.format.accounts import Tally
from pipeline.location import Place
from pipeline.source.config import AnySource
from pipeline.source.interface import Reservations
from pipeline.source.registry import open_source
from pipeline.source.stage import account_of, read_shard
from tests.helpers.faults import Lost, Wrong


def check_corpus(
    work: Path,
    section: Mapping[str, Any],
    texts: Collection[str],
    failed: Mapping[str, int] | None = None,
    noted: Mapping[str, int] | None = None,
    reserved: tuple[Place, ...] = (),
) -> list[str]:
    """Read a corpus and return the ids of its documents.

    Args:
        work: Folder for the parts.
        section: The section `source` of a config.
        texts: The texts that can be read.
        failed: Number of lost documents by reason.
        noted: Number of files, lines and fields by reason.
        reserved: Places of targets.

    Raises:
        Lost: A text was not read, and no reason counts it.
        Wrong: Plan and build differ, or reasons and their numbers are not the expected ones.
    """
    failed, noted = failed or {}, noted or {}
    source = open_source(TypeAdapter(AnySource).validate_python(section), Reservations(reserved))
    inventory = source.plan()
    parts = [read_shard(shard, work / shard.name, source) for shard in inventory.shards]
    tables = [pq.read_table(part.folder / "documents.parquet") for part in parts]
    read = [text for table in tables for text in table["text"].to_pylist()]
    ids = [doc_id for table in tables for doc_id in table["doc_id"].to_pylist()]
    lost: Counter[str] = Counter()
    unread = account_of(Tally(), inventory.unread).noted
    notes = Counter({reason: tally.rows for reason, tally in unread.items()})
    for part in parts:
        lost.update({reason: tally.rows for reason, tally in part.account.failed.items()})
        notes.update({reason: tally.rows for reason, tally in part.account.noted.items()})
    planted, found = Counter(texts), Counter(read)
    if planted != found:
        raise Lost(f"missing {planted - found}, added {found - planted}")
    if lost != Counter(failed):
        raise Wrong(f"counted as lost {dict(lost)}, planted {failed}")
    if notes != Counter(noted):
        raise Wrong(f"noted {dict(notes)}, planted {noted}")
    rows = [
        row
        for part in parts
        for row in pq.read_table(part.folder / "quarantine.parquet").to_pylist()
    ]
    examples = {row["reason"] for row in rows} | {note.reason for note in inventory.unread}
    if examples != {*lost, *notes}:
        raise Wrong(f"the quarantine has {examples}, the accounts {[*lost, *notes]}")
    promised = sum(source.read_head(shard).records for shard in inventory.shards)
    if round(promised) != len(read):
        raise Wrong(f"plan promises {promised} documents, the build reads {len(read)}")
    return ids
