"""Small finished parts, made by hand."""

import hashlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data_catalog.format import tables
from data_catalog.format.accounts import Account, Tally
from pipeline.parts import Part, make_part


def source_part(
    folder: Path, texts: list[str], source: str = "site", group_rows: int | None = None
) -> Part:
    """Documents `NAME/0`, `NAME/1`, ... whose id_int is 10, 11, ..., in row groups."""
    rows = [
        {
            "doc_id": f"{folder.name}/{i}",
            "id_int": 10 + i,
            "url": "",
            "source": source,
            "language": "en",
            "digest": hashlib.sha1(text.encode()).hexdigest(),
            "text": text,
            "signals": [("rps_doc_word_count", float(len(text.split())))],
            "shipped_duplicate": False,
        }
        for i, text in enumerate(texts)
    ]

    def make(out: Path) -> Account:
        pq.write_table(
            pa.Table.from_pylist(rows, tables.SOURCE),
            out / "documents.parquet",
            row_group_size=group_rows,
        )
        pq.write_table(tables.QUARANTINE.empty_table(), out / "quarantine.parquet")
        amount = Tally(rows=len(texts), characters=sum(map(len, texts)))
        return Account(read=amount, kept=amount)

    return make_part(folder, f"source {folder.name} {texts}", make)


def verdicts_part(
    folder: Path, sources: list[Part], dropped: dict[str, list[int]] | None = None
) -> Part:
    """Verdicts on every source part: all kept but the rows named by part."""
    dropped = dropped or {}

    def make(out: Path) -> Account:
        kept = Tally()
        for part in sources:
            texts = pq.read_table(
                part.folder / "documents.parquet", columns=["id_int", "text"]
            ).to_pylist()
            rows = [
                {
                    "id_int": row["id_int"],
                    "characters": len(row["text"]),
                    "failed_rules": 0,
                    "reason": "rule.x" if i in dropped.get(part.name, []) else None,
                }
                for i, row in enumerate(texts)
            ]
            pq.write_table(
                pa.Table.from_pylist(rows, tables.VERDICTS), out / f"{part.name}.parquet"
            )
            for row in rows:
                kept += Tally() if row["reason"] else Tally(rows=1, characters=row["characters"])
        return Account(read=kept, kept=kept)

    return make_part(folder, f"verdicts {dropped} {[part.fingerprint for part in sources]}", make)


def assigned_part(folder: Path, leaves: list[int]) -> Part:
    """Leaves and distances of a part's kept documents."""

    def make(out: Path) -> Account:
        distance = np.arange(len(leaves), dtype=np.float32) / 10
        pq.write_table(
            pa.table({"leaf": pa.array(leaves, pa.uint32()), "distance": distance}),
            out / "leaves.parquet",
        )
        return Account()

    return make_part(folder, f"assigned {leaves}", make)
