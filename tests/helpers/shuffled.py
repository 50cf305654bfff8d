"""Corpora for the tests of deduplication, given as texts."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from data_catalog.format import tables
from data_catalog.format.accounts import Account, Tally
from pipeline.config import Dedup
from pipeline.dedup.shuffle import drop_copies
from pipeline.dedup.targets import KnownTexts
from pipeline.parts import Part, make_part
from pipeline.run import one_by_one
from pipeline.source.documents import Document, Shard
from pipeline.source.stage import source_table

Row = tuple[str, bool | None, str | None]  # text, shipped_duplicate, quality's reason


def make_parts(root: Path, name: str, *rows: Row) -> tuple[Part, Part]:
    """Return a source part and quality's verdict on it."""
    table = source_table(
        [
            Document(f"{name}/{i}", text, shipped_duplicate=shipped)
            for i, (text, shipped, _) in enumerate(rows)
        ]
    )
    verdicts = [
        {
            "id_int": number,
            "characters": len(text),
            "failed_rules": int(reason is not None),
            "reason": reason,
        }
        for number, (text, _, reason) in zip(table["id_int"].to_pylist(), rows, strict=True)
    ]

    def source(out: Path) -> Account:
        pq.write_table(table, out / "documents.parquet")
        amount = Tally(rows=len(rows))
        return Account(read=amount, kept=amount)

    def judged(out: Path) -> Account:
        pq.write_table(pa.Table.from_pylist(verdicts, tables.VERDICTS), out / "verdicts.parquet")
        kept = Tally(rows=sum(reason is None for _, _, reason in rows))
        return Account(read=kept, kept=kept)

    return make_part(root / "source" / name, f"source {rows}", source), make_part(
        root / "quality" / name, f"quality {rows}", judged
    )


def deduplicate(
    work: Path,
    made: Sequence[tuple[Part, Part]],
    config: Dedup,
    targets: Mapping[str, str] | None = None,
    known: KnownTexts | None = None,
) -> list[Part]:
    """Return the parts of verdicts. The corpus ships no signatures."""
    shards = [
        Shard(name=source.name, kind="jsonl", root=work, key=source.name, inputs=())
        for source, _ in made
    ]
    sources, judged = [source for source, _ in made], [verdict for _, verdict in made]
    return drop_copies(shards, sources, judged, work, config, one_by_one, targets or {}, known)


def reasons_of(parts: Sequence[Part]) -> dict[str, list[str | None]]:
    """Return the reason of each document by part."""
    files = [part.folder / f"{part.name}.parquet" for part in parts]
    assert all(pq.read_table(file).schema.equals(tables.VERDICTS) for file in files)
    return {file.stem: pq.read_table(file)["reason"].to_pylist() for file in files}
