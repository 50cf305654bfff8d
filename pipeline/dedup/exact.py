"""Exact copies by digest: of a target's text, of a known text, and of an earlier document."""

import glob
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from jaxtyping import UInt8

from pipeline.config import Build
from pipeline.dedup.places import Alive, Places, to_places
from pipeline.parts import Part
from pipeline.source.documents import text_digest
from pipeline.source.stage import DOCUMENTS_FILE
from pipeline.source.targets import read_target

_BATCH_ROWS = 65_536

# Documents that are known, listed as copies, or later holders of a digest among the others. A
# document without a digest is not a copy.
_COPIES = """
WITH judged AS (
    SELECT alive.place, alive.digest,
           coalesce(known.code, CASE WHEN alive.listed THEN $listed END) AS code
    FROM alive
    LEFT JOIN (SELECT digest, min(code) AS code FROM known GROUP BY digest) AS known USING (digest)
), firsts AS (
    SELECT digest, min(place) AS first FROM judged
    WHERE code IS NULL AND digest IS NOT NULL GROUP BY digest HAVING count(*) > 1
)
SELECT place, coalesce(code, $copy) AS code FROM judged LEFT JOIN firsts USING (digest)
WHERE code IS NOT NULL OR ($by_digest AND place > first) ORDER BY place
"""


@dataclass(frozen=True)
class KnownTexts:
    """Texts that exist elsewhere. A document equal to one of them is dropped."""

    reason: str  # e.g. "dedup.catalog"
    digests: tuple[Path, ...]  # Parquet files with a column `digest` (see `text_digest`)
    fingerprint: str  # of the contents of the files
    # Parquet files with a column `text`. The tier minhash drops near copies of these too.
    targets: tuple[Path, ...] = ()


def target_texts(config: Build) -> dict[str, str]:
    """Return the texts of the documents of all targets by digest, in the order of the digests.

    Raises:
        UserError: A target cannot be read, see `pipeline.source.targets.read_target`.
    """
    columns = (read_target(target, config.source)[0]["text"] for target in config.all_targets())
    texts = {text_digest(text): text for column in columns for text in column.to_pylist()}
    return dict(sorted(texts.items()))


def exact_copies(
    connection: duckdb.DuckDBPyConnection,
    sources: Sequence[Part],
    alive: Alive,
    known: Sequence[pa.Table | KnownTexts],
    codes: Sequence[int],
    listed: int | None,
    copy: int | None,
) -> tuple[Places, UInt8[np.ndarray, " documents"]]:
    """Return the places of the documents to drop, ascending, and a code for each.

    DuckDB spills to disk if needed.

    Args:
        connection: An empty database.
        sources: Source parts.
        alive: Documents that are still kept, per part.
        known: Texts with the code `codes[i]` each: a table with a column `digest`, or files.
        codes: Codes of `known`. The smallest one counts.
        listed: Code of documents that the corpus lists as copies. None: ignore its list.
        copy: Code of later holders of a digest. None: keep them.
    """
    connection.execute("CREATE TABLE known (digest VARCHAR, code UTINYINT)")
    for texts, code in zip(known, codes, strict=True):
        if isinstance(texts, KnownTexts):
            files = [glob.escape(str(path)) for path in texts.digests]
            connection.execute(
                "INSERT INTO known SELECT digest, ? FROM read_parquet(?)", [code, files]
            )
        else:
            _insert(
                connection,
                "known",
                texts.append_column("code", pa.array(np.full(len(texts), code, np.uint8))),
            )
    connection.execute("CREATE TABLE alive (digest VARCHAR, place BIGINT, listed BOOL)")
    for number, source in enumerate(sources):
        mask = alive(number)
        start = 0
        with pq.ParquetFile(source.folder / DOCUMENTS_FILE, pre_buffer=False) as file:
            for batch in file.iter_batches(_BATCH_ROWS, columns=["digest", "shipped_duplicate"]):
                rows = np.flatnonzero(mask[start : start + len(batch)])
                shipped = (
                    pc.fill_null(batch["shipped_duplicate"], False)
                    if listed is not None
                    else pa.array(np.zeros(len(batch), bool))
                )
                columns = [
                    batch["digest"].take(pa.array(rows)),
                    pa.array(to_places(number, rows + start)),
                    shipped.take(pa.array(rows)),
                ]
                _insert(connection, "alive", pa.table(columns, names=["digest", "place", "listed"]))
                start += len(batch)
    parameters = {"listed": listed or 0, "copy": copy or 0, "by_digest": copy is not None}
    copies = connection.sql(_COPIES, params=parameters).to_arrow_table()
    return copies["place"].to_numpy(), copies["code"].to_numpy().astype(np.uint8)


def _insert(connection: duckdb.DuckDBPyConnection, table: str, rows: pa.Table) -> None:
    connection.register("new_rows", rows)
    connection.table("new_rows").insert_into(table)
    connection.unregister("new_rows")
