"""Example documents of each domain, chosen from a random sample of every leaf.

There are nearest, typical and boundary ones.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from jaxtyping import Float, Int, Shaped, UInt64

from data_catalog.format import tables
from data_catalog.format.layout import Levels
from pipeline.describe import terms

EXAMPLES_FILE = "examples.parquet"
EXAMPLE_KINDS = ("nearest", "typical", "boundary")
MAXIMUM_EXAMPLES = 5  # examples per kind and domain
RESERVOIR_DOCUMENTS = 500  # sampled documents per leaf, from which examples are chosen
SNIPPET_CHARACTERS = 200  # length of a snippet
# An odd factor is a bijection. Samples and splits are ordered by ids, and reservoirs by products.
_MIX_FACTOR = np.uint64(0xD1B54A32D192ED03)


def first_of_each(
    groups: Int[np.ndarray, " n"], *keys: Shaped[np.ndarray, " n"], most: int
) -> tuple[Int[np.ndarray, " _m"], Int[np.ndarray, " _m"]]:
    """Return the first `most` rows of each group in the order of `keys`, and their ranks from 0.

    The rows are sorted by group, then keys.
    """
    order = np.lexsort((*reversed(keys), groups))
    ordered = groups[order]
    starts = (
        np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
        if len(ordered)
        else np.zeros(0, np.int64)
    )
    rank = np.arange(len(order)) - np.repeat(starts, np.diff(np.r_[starts, len(order)]))
    kept = rank < most
    return order[kept], rank[kept]


def reservoir(
    leaf: Int[np.ndarray, " documents"], ids: UInt64[np.ndarray, " documents"], most: int
) -> tuple[Int[np.ndarray, " _m"], Int[np.ndarray, " _m"]]:
    """Return a uniform sample of at most `most` documents of every leaf, by smallest hashed id.

    The sample does not depend on the files that hold the documents. Returns rows sorted by leaf,
    and their ranks. The first j ranks of a leaf are a sample too.
    """
    return first_of_each(leaf, ids * _MIX_FACTOR, most=most)


def leaf_examples(
    leaf: Int[np.ndarray, " n"], distance: Float[np.ndarray, " n"], most: int = MAXIMUM_EXAMPLES
) -> dict[str, tuple[Int[np.ndarray, " _m"], Int[np.ndarray, " _m"]]]:
    """Return rows and ranks of each kind of example of every leaf.

    They are the documents nearest to the leaf's centroid, nearest to its median distance, and
    farthest from its centroid.
    """
    by_distance = np.lexsort((distance, leaf))
    leaves, starts, sizes = np.unique(leaf[by_distance], return_index=True, return_counts=True)
    medians = distance[
        by_distance[starts + (sizes - 1) // 2]
    ]  # the lower median, which is the distance of a document
    off_median = np.abs(distance - medians[np.searchsorted(leaves, leaf)])
    return {
        "nearest": first_of_each(leaf, distance, most=most),
        "typical": first_of_each(leaf, off_median, most=most),
        "boundary": first_of_each(leaf, -distance, most=most),
    }


def domain_examples(
    leaf: Int[np.ndarray, " n"],
    rank: Int[np.ndarray, " n"],
    sizes: Int[np.ndarray, " leaves"],
    span: int,
    most: int = MAXIMUM_EXAMPLES,
) -> tuple[Int[np.ndarray, " _m"], Int[np.ndarray, " _m"]]:
    """Return the examples of coarser domains, from those of their leaves.

    They are the best one of each of the largest leaves, then the second ones. Distances to
    different centroids do not compare: by distance, all would come from the tightest leaf.
    """
    return first_of_each(leaf // span, rank, -sizes[leaf], leaf, most=most)


class LeafSample:
    """A reservoir of every leaf of some files, rows sorted by leaf.

    Only the texts that are used are read, once, in file order.
    """

    def __init__(self, files: Sequence[str], levels: Levels) -> None:
        table = pa.concat_tables(
            [pq.read_table(file, columns=["leaf", "id_int", "distance"]) for file in files]
        )
        leaf = table["leaf"].to_numpy().astype(np.int64)
        self._sizes = np.bincount(leaf, minlength=levels.leaves)
        rows, rank = reservoir(leaf, table["id_int"].to_numpy(), RESERVOIR_DOCUMENTS)
        self.leaf, self._distance = leaf[rows], table["distance"].to_numpy()[rows]
        self._kinds = leaf_examples(self.leaf, self._distance)
        self._opened = rank < terms.documents_per_leaf(levels.span(levels.granularities[0]))
        used = self._opened.copy()
        for chosen, _ in self._kinds.values():
            used[chosen] = True
        self._place = np.cumsum(used) - 1  # index of a used row in the texts
        order = np.argsort(rows[used])
        read = _read_rows(files, rows[used][order])
        self._texts = read.take(pa.array(np.argsort(order)))

    def examples(self, levels: Levels) -> pa.Table:
        """Return tables.EXAMPLES, sorted by level, kind, domain and rank."""
        parts = []
        for k in levels.granularities:
            for kind, (rows, rank) in self._kinds.items():
                chosen, ranks = domain_examples(self.leaf[rows], rank, self._sizes, levels.span(k))
                texts = self._texts.take(pa.array(self._place[rows[chosen]]))
                columns = {
                    "level": np.full(len(chosen), k),
                    "domain": self.leaf[rows[chosen]] // levels.span(k),
                    "kind": pa.array([kind] * len(chosen), pa.string()),
                    "rank": ranks,
                    "doc_id": texts["doc_id"],
                    "distance": self._distance[rows[chosen]],
                    "source": texts["source"],
                    "snippet": [
                        " ".join(text.split())[:SNIPPET_CHARACTERS]
                        for text in texts["opening"].to_pylist()
                    ],
                }
                parts.append(pa.table(columns).cast(tables.EXAMPLES))
        return pa.concat_tables(parts)

    def openings(self) -> Iterator[str]:
        """Yield one text per leaf that has documents, in order."""
        leaves = self.leaf[self._opened]
        texts = self._texts["opening"].take(pa.array(self._place[self._opened]))
        starts = np.unique(leaves, return_index=True)[1].tolist()
        for first, end in pairwise([*starts, len(leaves)]):
            yield "\n".join(texts.slice(first, end - first).to_pylist())


def _read_rows(files: Sequence[str], rows: Int[np.ndarray, " n"]) -> pa.Table:
    """Return doc_id, source and the text's opening of sorted rows, counted over all files.

    One row group is in memory at a time.
    """
    schema = pa.schema([("doc_id", pa.string()), ("source", pa.string()), ("opening", pa.string())])
    parts = [schema.empty_table()]
    before = 0
    for path in files:
        with pq.ParquetFile(path, pre_buffer=False) as file:
            for group in range(file.num_row_groups):
                n = file.metadata.row_group(group).num_rows
                of_group = rows[slice(*np.searchsorted(rows, [before, before + n]))] - before
                if len(of_group):
                    table = file.read_row_group(group, columns=["doc_id", "source", "text"]).take(
                        pa.array(of_group)
                    )
                    opening = pc.utf8_slice_codeunits(
                        table["text"], 0, terms.OPENING_CHARACTERS
                    ).cast(pa.string())
                    parts.append(
                        pa.table([table["doc_id"], table["source"], opening], schema=schema)
                    )
                before += n
    return pa.concat_tables(parts)
