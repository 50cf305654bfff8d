"""Near copies by MinHash: documents linked by shared bands are a family, and its first stays."""

from collections.abc import Sequence

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Int64

from pipeline.dedup.places import Alive, Places, to_places
from pipeline.dedup.signatures import SIGNATURES_FILE
from pipeline.parts import Part

_BATCH_ROWS = 8_192

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
    connection: duckdb.DuckDBPyConnection, signatures: Sequence[Part], alive: Alive
) -> Places:
    """Return the places of all documents of a family except its first, ascending.

    Only documents that are `alive` count. DuckDB groups the bands and spills to disk if needed.
    Finding the families takes 40 bytes of memory per edge between documents that share a band.
    """
    connection.execute("CREATE TABLE bands (band UHUGEINT, place BIGINT)")
    for number, part in enumerate(signatures):
        mask = alive(number)
        start = 0
        with pq.ParquetFile(part.folder / SIGNATURES_FILE, pre_buffer=False) as file:
            for batch in file.iter_batches(_BATCH_ROWS):
                rows = np.flatnonzero(mask[start : start + len(batch)])
                bands = batch["bands"].take(pa.array(rows))
                connection.register(
                    "new_rows",
                    pa.table(
                        [bands, pa.array(to_places(number, rows + start))], names=["bands", "place"]
                    ),
                )
                connection.execute(_INSERT)
                connection.unregister("new_rows")
                start += len(batch)
    edges = connection.sql(_EDGES).to_arrow_table()
    return later_members(edges["first"].to_numpy(), edges["place"].to_numpy())


def later_members(a: Int64[np.ndarray, " edges"], b: Int64[np.ndarray, " edges"]) -> Places:
    """Return the places, ascending, that are not the smallest of their connected component.

    The graph has an edge from `a[i]` to `b[i]` for each i.
    """
    from scipy.sparse import coo_array  # noqa: PLC0415
    from scipy.sparse.csgraph import connected_components  # noqa: PLC0415

    places, ends = np.unique(np.concatenate([a, b]), return_inverse=True)
    n = len(places)
    graph = coo_array((np.ones(len(a), bool), (ends[: len(a)], ends[len(a) :])), shape=(n, n))
    _, family = connected_components(graph, directed=False)
    first = np.zeros(n, bool)
    first[np.unique(family, return_index=True)[1]] = True
    members: Places = places[~first]
    return members
