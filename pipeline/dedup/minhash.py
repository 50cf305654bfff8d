"""Near copies by MinHash: documents linked by shared bands are a family, and its first stays.

Documents of targets come before all others, so none of a family with such a document stays.
"""

from collections.abc import Sequence

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Bool, Int64

from data_catalog.format import tables
from pipeline.dedup.places import Alive, Places, to_places
from pipeline.dedup.signatures import SIGNATURES_FILE
from pipeline.grams import component_numbers
from pipeline.parts import Part

_BATCH_ROWS = 8_192
_TARGETS = -1  # the place of all documents of targets

# A band and its index are hashed to 128 bits, which take 16 bytes instead of at least 36.
_INSERT = """
INSERT INTO bands
SELECT md5_number(encode(i::VARCHAR || ':') || band), place
FROM (SELECT place, unnest(bands) AS band, generate_subscripts(bands, 1) AS i FROM new_rows)
"""
# Edges from the first holder of each band to the others. They give the same families as all pairs,
# with at most one edge per document and band.
_EDGES = """
SELECT DISTINCT first, place FROM bands
JOIN (SELECT band, min(place) AS first FROM bands GROUP BY band HAVING count(*) > 1) USING (band)
WHERE place > first
"""


def near_copies(
    connection: duckdb.DuckDBPyConnection,
    signatures: Sequence[Part],
    alive: Alive,
    targets: Sequence[list[bytes] | None] = (),
) -> tuple[Places, Bool[np.ndarray, " documents"]]:
    """Return the places of all documents of a family except its first, ascending.

    Only documents that are `alive` count. DuckDB groups the bands and spills to disk if needed.
    Finding the families takes 40 bytes of memory per edge between documents that share a band.

    Args:
        connection: A database without a table `bands`.
        signatures: The part of `sign_part` for each source part.
        alive: Documents that are still kept, per part.
        targets: Bands of each document of a target, as of `pipeline.dedup.signatures.sign`.

    Returns:
        The places, and whether the family of each has a document of a target.
    """
    connection.execute("CREATE TABLE bands (band UHUGEINT, place BIGINT)")
    of_targets = pa.array(targets, tables.SIGNATURES.field("bands").type)
    _insert_bands(connection, of_targets, np.full(len(targets), _TARGETS))
    for number, part in enumerate(signatures):
        mask = alive(number)
        start = 0
        with pq.ParquetFile(part.folder / SIGNATURES_FILE, pre_buffer=False) as file:
            for batch in file.iter_batches(_BATCH_ROWS):
                rows = np.flatnonzero(mask[start : start + len(batch)])
                bands = batch["bands"].take(pa.array(rows))
                _insert_bands(connection, bands, to_places(number, rows + start))
                start += len(batch)
    edges = connection.sql(_EDGES).to_arrow_table()
    members, firsts = later_members(edges["first"].to_numpy(), edges["place"].to_numpy())
    return members, firsts == _TARGETS


def later_members(
    a: Int64[np.ndarray, " edges"], b: Int64[np.ndarray, " edges"]
) -> tuple[Places, Int64[np.ndarray, " documents"]]:
    """Return the places, ascending, that are not the smallest of their connected component.

    The graph has an edge from `a[i]` to `b[i]` for each i. The smallest place of the component of
    each is returned too.
    """
    places, ends = np.unique(np.concatenate([a, b]), return_inverse=True)
    family = component_numbers(len(places), ends[: len(a)], ends[len(a) :])
    firsts = places[np.unique(family, return_index=True)[1]][family]
    is_later = places != firsts
    return places[is_later], firsts[is_later]


def _insert_bands(
    connection: duckdb.DuckDBPyConnection,
    bands: pa.Array,
    places: Int64[np.ndarray, " documents"],
) -> None:
    connection.register("new_rows", pa.table([bands, pa.array(places)], names=["bands", "place"]))
    connection.execute(_INSERT)
    connection.unregister("new_rows")
