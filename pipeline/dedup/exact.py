"""Exact copies: one of each text stays, the first among those that quality kept."""

import logging
import shutil
from collections.abc import Sequence
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from jaxtyping import Int

from data_catalog import tables
from data_catalog.manifest import fingerprint
from data_catalog.records import Account, Tally, total
from pipeline.config import Build
from pipeline.parts import Part, make_part
from pipeline.quality import VERDICTS
from pipeline.source import DOCUMENTS

logger = logging.getLogger(__name__)

VERSION = 1
_PLACE_BITS = 40  # a document's place: part number above, row below
_MEMORY = "1GB"  # then DuckDB spills to the part's folder
_BATCH_ROWS = 65_536

# Every occurrence of a digest but the first. A missing digest is a copy of nothing.
_COPIES = """
SELECT place FROM alive
JOIN (SELECT digest, min(place) AS first FROM alive WHERE digest IS NOT NULL GROUP BY digest HAVING count(*) > 1) USING (digest)
WHERE place > first ORDER BY place
"""


def dedup(sources: Sequence[Part], judged: Sequence[Part], folder: Path, config: Build) -> Part:
    """Write `NAME.parquet` (tables.VERDICTS) for each source part, rows in its order: the final word on every document.

    To quality's reasons it adds, by `dedup.tiers`, `dedup.shipped` (the corpus itself lists the document as a copy; which copy it keeps
    may lie outside the files at hand) and `dedup.digest` (same text as an earlier one, by part and row, of those still kept).
    Memory is bounded: digests are grouped by DuckDB, which spills to disk.
    """
    names = [part.name for part in sources]
    if len(set(names)) != len(names) or len(judged) != len(sources):
        raise ValueError(f"expected one verdict for each of {len(names)} parts with names of their own, found {len(judged)}")

    def make(out: Path) -> Account:
        tiers = config.dedup.tiers
        copies = _copies(sources, judged, out, "shipped" in tiers) if "digest" in tiers else np.empty(0, np.int64)
        accounts: list[Account] = []
        if "shipped" in tiers and not any(_lists(source) for source in sources):
            logger.warning("dedup.tiers names shipped, but the corpus has no duplicates file: this tier drops nothing; use digest")
        for number, (source, verdict) in enumerate(zip(sources, judged, strict=True)):
            low, high = np.searchsorted(copies, [number << _PLACE_BITS, (number + 1) << _PLACE_BITS])
            rows = copies[low:high] - (number << _PLACE_BITS)
            table, account = _decide(source, verdict, rows, "shipped" in tiers)
            pq.write_table(table, out / f"{source.name}.parquet", compression="zstd")
            accounts.append(account)
        return total(accounts)

    inputs = [[source.name, source.fingerprint, verdict.fingerprint] for source, verdict in zip(sources, judged, strict=True)]
    return make_part(folder, fingerprint("dedup", VERSION, config.dedup, inputs), make)


def _copies(sources: Sequence[Part], judged: Sequence[Part], out: Path, shipped: bool) -> Int[np.ndarray, " copies"]:
    """Places of the documents to drop by digest, ascending."""
    database = out / "dedup.duckdb"
    settings: dict[str, str | bool | int | float | list[str]] = {"memory_limit": _MEMORY, "temp_directory": str(out / "dedup.tmp")}
    with duckdb.connect(str(database), config=settings) as connection:
        connection.execute("CREATE TABLE alive (digest VARCHAR, place BIGINT)")
        for number, (source, verdict) in enumerate(zip(sources, judged, strict=True)):
            open_rows = _open(pq.read_table(verdict.folder / VERDICTS, columns=["reason"])["reason"])
            start = 0
            with pq.ParquetFile(source.folder / DOCUMENTS) as file:
                for batch in file.iter_batches(_BATCH_ROWS, columns=["digest", "shipped_duplicate"]):
                    alive = open_rows[start : start + len(batch)]
                    if shipped:
                        alive = alive & ~_listed(batch["shipped_duplicate"])
                    places = pa.array((number << _PLACE_BITS) + start + np.flatnonzero(alive))
                    digests = pa.table({"digest": batch["digest"].filter(pa.array(alive)), "place": places})
                    connection.register("digests", digests)
                    connection.execute("INSERT INTO alive SELECT digest, place FROM digests")
                    connection.unregister("digests")
                    start += len(batch)
        copies: Int[np.ndarray, " copies"] = connection.sql(_COPIES).to_arrow_table()["place"].to_numpy()
    for path in out.glob("dedup.duckdb*"):
        path.unlink()
    shutil.rmtree(out / "dedup.tmp", ignore_errors=True)
    return copies


def _lists(source: Part) -> bool:
    """Whether the corpus's own list of duplicates was there for this part."""
    return bool(pq.read_table(source.folder / DOCUMENTS, columns=["shipped_duplicate"])["shipped_duplicate"].is_valid().to_numpy().any())


def _open(reasons: pa.ChunkedArray) -> np.ndarray:
    mask: np.ndarray = pc.is_null(reasons).to_numpy()
    return mask


def _listed(shipped: pa.Array) -> np.ndarray:
    mask: np.ndarray = pc.fill_null(shipped, False).to_numpy(zero_copy_only=False)
    return mask


def _decide(source: Part, verdict: Part, copies: Int[np.ndarray, " copies"], shipped: bool) -> tuple[pa.Table, Account]:
    """The final verdicts on one part, given the rows that are copies by digest."""
    table = pq.read_table(verdict.folder / VERDICTS)
    lengths = table["characters"].to_numpy()
    read = _open(table["reason"])
    by_shipped = np.zeros(len(read), dtype=bool)
    if shipped:
        listed = pq.read_table(source.folder / DOCUMENTS, columns=["shipped_duplicate"])["shipped_duplicate"]
        by_shipped = read & _listed(listed.combine_chunks())
    by_digest = np.zeros(len(read), dtype=bool)
    by_digest[copies] = True
    added = pa.array(np.where(by_shipped, "dedup.shipped", "dedup.digest"), pa.string(), mask=~(by_shipped | by_digest))
    final = table.set_column(table.schema.get_field_index("reason"), "reason", pc.coalesce(table["reason"], added))
    kept = read & ~by_shipped & ~by_digest

    def tally(mask: np.ndarray) -> Tally:
        return Tally(rows=int(mask.sum()), characters=int(lengths[mask].sum()))

    masks = {"dedup.shipped": by_shipped, "dedup.digest": by_digest}
    dropped = {reason: tally(mask) for reason, mask in masks.items() if mask.any()}
    return final.cast(tables.VERDICTS), Account(read=tally(read), kept=tally(kept), dropped=dropped)
