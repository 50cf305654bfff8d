"""Copies in meaning, by cosines of embeddings inside a domain (SemDeDup, arXiv:2303.09540).

`near_part` finds the copies of a top-level domain, and `drop_near` drops those of all domains. As
in the tier minhash, a document is dropped only for an earlier one that stays, not for its copy.
"""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float32, Int64

from data_catalog.format import tables
from data_catalog.format.accounts import Account, Tally, total
from data_catalog.format.layout import Levels
from data_catalog.format.manifest import fingerprint
from data_catalog.place import Folder
from pipeline.arrays import ArrayFile
from pipeline.cluster.kmeans import unit_rows
from pipeline.cluster.stage import LEAVES_FILE
from pipeline.config import Dedup
from pipeline.dedup.places import Places, place_parts, place_rows, places_in_part, to_places
from pipeline.dedup.stage import decide, kept_mask
from pipeline.embed.stage import read_embeddings
from pipeline.parts import Part, make_part
from pipeline.verdicts import kept_key, read_verdicts, write_verdicts

logger = logging.getLogger(__name__)

# Versions of the output:
# 1: near copies by meaning, within a leaf.
# 2: only of documents that stay.
VERSION = 2
_SEMANTIC_REASON = "dedup.semantic"
NEAR_FILE = "near.parquet"
# Maximum number of documents compared as one domain if a finer level divides it. A comparison of
# this size costs about 20 MFLOP per document.
MAXIMUM_CELL_DOCUMENTS = 50_000
_DECIMALS = 5  # equal vectors have a cosine of 1, not of 0.99999994
BLOCK_DOCUMENTS = 2_048  # side of a block of compared pairs

Members = Int64[np.ndarray, " _members"]


def near_part(
    top: int,
    embedded: Sequence[Part],
    assigned: Sequence[Part],
    folder: Folder,
    levels: Levels,
    config: Dedup,
) -> Part:
    """Find the documents of a top-level domain that are near an earlier one that stays.

    Writes `near.parquet` (tables.NEAR): the documents with a cosine of `dedup.cosine` or more to an
    earlier document that is not in the table itself. Earlier is by part, then row, inside the
    coarsest domain around the document that has at most `MAXIMUM_CELL_DOCUMENTS` documents, or its
    leaf. Pairs across domains are not compared. Memory: 24 bytes per document of the domain and
    about 100 MB. A leaf of n documents takes n^2 / 2 products, fewer if it has copies.
    """
    cosine = config.cosine
    inputs = [
        [x.fingerprint, leaves.fingerprint] for x, leaves in zip(embedded, assigned, strict=True)
    ]

    def make(out: Path) -> Account:
        places, leaves = _documents(top, assigned, levels)
        vectors = read_embeddings(embedded)
        near = [
            _near(vectors, places[members], cosine) for members in comparison_cells(leaves, levels)
        ]
        pq.write_table(
            pa.concat_tables([tables.NEAR.empty_table(), *near]),
            out / NEAR_FILE,
            compression="zstd",
        )
        amount = Tally(rows=len(places))
        return Account(read=amount, kept=amount)

    return make_part(
        folder, fingerprint("near", VERSION, top, levels.granularities, inputs, cosine), make
    )


def drop_near(
    near: Sequence[Part],
    sources: Sequence[Part],
    embedded: Sequence[Part],
    folder: Folder,
) -> Part:
    """Drop the copies that `near_part` found.

    Writes `NAME.parquet` (tables.VERDICTS) for each source part: the verdicts before this stage,
    with the reason `dedup.semantic` for the documents dropped here.

    Args:
        near: The part of `near_part` for each top-level domain.
        sources: The source parts.
        embedded: For each source part, the verdicts that keep the documents with an embedding.
        folder: The part's folder.
    """

    def make(out: Path) -> Account:
        close = [pq.read_table(part.file(NEAR_FILE), columns=["part", "row"]) for part in near]
        rows = pa.concat_tables([tables.NEAR.empty_table().select(["part", "row"]), *close])
        places = np.sort(
            to_places(rows["part"].to_numpy().astype(np.int64), rows["row"].to_numpy())
        )
        accounts: list[Account] = []
        for number, source in enumerate(sources):
            verdicts = read_verdicts(source, embedded[number])
            dropped = np.flatnonzero(kept_mask(verdicts))[
                place_rows(places[places_in_part(number, places)])
            ]
            table, account = decide(
                verdicts, dropped, np.zeros(len(dropped), np.uint8), [_SEMANTIC_REASON]
            )
            write_verdicts(out / f"{source.name}.parquet", table)
            accounts.append(account)
        return total(accounts)

    names = [[source.name, source.fingerprint] for source in sources]
    before = [kept_key(source, part) for source, part in zip(sources, embedded, strict=True)]
    key = fingerprint("drop near", VERSION, names, before, [part.fingerprint for part in near])
    return make_part(folder, key, make)


def comparison_cells(
    leaves: Int64[np.ndarray, " documents"], levels: Levels, most: int = MAXIMUM_CELL_DOCUMENTS
) -> list[Members]:
    """Return the groups of documents that are compared with each other, members ascending.

    A group is a domain of at most `most` documents, as coarse as possible, or a leaf.
    """
    finished: list[Members] = []
    waiting = [np.arange(len(leaves))] if len(leaves) else []
    for k in levels.granularities:
        finished += [members for members in waiting if len(members) <= most]
        too_large = [members for members in waiting if len(members) > most]
        waiting = []
        for members in too_large:
            domains = levels.domains(leaves[members], k)
            order = np.argsort(domains, kind="stable")
            starts = np.flatnonzero(np.diff(domains[order])) + 1
            waiting += np.split(members[order], starts)
    for members in waiting:
        if len(members) > most:
            logger.info(
                "leaf %d has %d documents: comparing all pairs takes long",
                leaves[members[0]],
                len(members),
            )
    return finished + waiting


def _documents(
    top: int, assigned: Sequence[Part], levels: Levels
) -> tuple[Places, Int64[np.ndarray, " documents"]]:
    """Return the places, ascending, and leaves of a top-level domain's documents.

    The row of a place counts the part's kept documents.
    """
    span = levels.span(levels.granularities[0])
    places: list[Places] = [np.empty(0, np.int64)]
    leaves: list[Int64[np.ndarray, " documents"]] = [np.empty(0, np.int64)]
    for number, part in enumerate(assigned):
        leaf = pq.read_table(part.file(LEAVES_FILE), columns=["leaf"])["leaf"].to_numpy()
        rows = np.flatnonzero(leaf // span == top)
        places.append(to_places(number, rows))
        leaves.append(leaf[rows].astype(np.int64))
    return np.concatenate(places), np.concatenate(leaves)


def _near(vectors: Sequence[ArrayFile], places: Places, minimum: float) -> pa.Table:
    """Return the places near an earlier one that stays (tables.NEAR)."""
    cosine, nearest = nearest_kept(
        lambda members: _gather(vectors, places[members]), len(places), minimum
    )
    near = np.flatnonzero(nearest >= 0)
    later, earlier = places[near], places[nearest[near]]
    columns = [
        place_parts(later).astype(np.uint32),
        place_rows(later),
        cosine[near],
        place_parts(earlier).astype(np.uint32),
        place_rows(earlier),
    ]
    return pa.Table.from_arrays([pa.array(column) for column in columns], schema=tables.NEAR)


def nearest_kept(
    vectors: Callable[[Members], Float32[np.ndarray, "_members dim"]],
    documents: int,
    minimum: float,
    block: int = BLOCK_DOCUMENTS,
) -> tuple[Float32[np.ndarray, " documents"], Int64[np.ndarray, " documents"]]:
    """Decide documents in order: one stays unless it is near an earlier one that stays.

    Args:
        vectors: Returns the unit vectors of some documents. At most two blocks are in memory.
        documents: Number of documents.
        minimum: Smallest cosine of near documents.
        block: Number of documents that are compared at once.

    Returns:
        The largest cosine of each document to an earlier one that stays, and the first document
        with it. If it is smaller than `minimum`, which means that the document stays, -1.
    """
    cosine = np.full(documents, -np.inf, np.float32)
    nearest = np.full(documents, -1)
    kept = np.empty(0, np.int64)
    for first in range(0, documents, block):
        own = np.arange(first, min(first + block, documents))
        x = vectors(own)
        best, value = np.full(len(own), -1), np.full(len(own), -np.inf, np.float32)
        for start in range(0, len(kept), block):
            earlier = kept[start : start + block]
            products = _cosines(x, vectors(earlier))
            column = products.argmax(axis=1)
            found = products[np.arange(len(own)), column]
            best = np.where(found > value, earlier[column], best)
            value = np.maximum(found, value)
        products = _cosines(x, x)
        stays = np.zeros(len(own), bool)
        for i in range(len(own)):
            before = np.flatnonzero(stays[:i])
            if len(before):
                column_of_best = int(before[products[i, before].argmax()])
                if products[i, column_of_best] > value[i]:
                    best[i], value[i] = own[column_of_best], products[i, column_of_best]
            stays[i] = value[i] < np.float32(minimum)
        cosine[own], nearest[own] = value, np.where(stays, -1, best)
        kept = np.concatenate([kept, own[stays]])
    return cosine, nearest


def _cosines(
    x: Float32[np.ndarray, "rows dim"], y: Float32[np.ndarray, "columns dim"]
) -> Float32[np.ndarray, "rows columns"]:
    return np.minimum((x @ y.T).round(_DECIMALS), 1)


def _gather(vectors: Sequence[ArrayFile], places: Places) -> Float32[np.ndarray, "members dim"]:
    parts = place_parts(places)
    numbers, starts = np.unique(parts, return_index=True)
    rows = np.split(place_rows(places), starts[1:])
    pieces = [vectors[i][inside] for i, inside in zip(numbers.tolist(), rows, strict=True)]
    return unit_rows(np.concatenate(pieces))
