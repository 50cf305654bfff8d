"""Positions of each leaf's rows and tokens in the files of a catalog."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Bool, Int, Integer

from data_catalog.format import tables


def extents(
    leaf: Integer[np.ndarray, " documents"],
    held_out: Bool[np.ndarray, " documents"],
    tokens: Int[np.ndarray, " documents"],
    top: int,
    part: int,
) -> pa.Table:
    """Return the extents of one sorted file as `tables.OFFSETS`, in the order of its rows."""
    starts = np.flatnonzero(
        np.r_[len(leaf) > 0, (leaf[1:] != leaf[:-1]) | (held_out[1:] != held_out[:-1])]
    )
    ends = np.r_[starts[1:], len(leaf)] if len(starts) else starts
    before = np.r_[0, np.cumsum(tokens, dtype=np.int64)]
    return pa.table(
        {
            "leaf": leaf[starts],
            "split": np.where(held_out[starts], "heldout", "train").astype(object),
            "top": np.full(len(starts), top),
            "part": np.full(len(starts), part),
            "first_row": starts,
            "rows": ends - starts,
            "first_token": before[starts],
            "tokens": before[ends] - before[starts],
        }
    ).cast(tables.OFFSETS)


@dataclass(frozen=True)
class Rows:
    """Neighbouring rows of one file of documents."""

    top: int
    part: int
    first: int
    count: int


@dataclass(frozen=True)
class Offsets:
    """The columns of an offsets table, by leaf."""

    leaf: Int[np.ndarray, " extents"]
    top: Int[np.ndarray, " extents"]
    part: Int[np.ndarray, " extents"]
    first_row: Int[np.ndarray, " extents"]
    rows: Int[np.ndarray, " extents"]

    def find(self, first: int, last: int) -> list[Rows]:
        """Return the rows of the leaves `first <= leaf < last`, one range per file.

        The rows are adjacent, because files are sorted by leaf.
        """
        inside = slice(*np.searchsorted(self.leaf, [first, last]))
        places = np.stack([self.top[inside], self.part[inside]])
        ranges = []
        for top, part in np.unique(places, axis=1).T.tolist():
            in_file = (places[0] == top) & (places[1] == part)
            ranges.append(
                Rows(
                    top,
                    part,
                    int(self.first_row[inside][in_file].min()),
                    int(self.rows[inside][in_file].sum()),
                )
            )
        return ranges


def read_offsets(path: Path) -> Offsets:
    """Read an offsets table. Its rows may have any order."""
    table = pq.read_table(path, columns=["leaf", "top", "part", "first_row", "rows"]).sort_by(
        "leaf"
    )
    return Offsets(
        *(
            table[name].to_numpy().astype(np.int64)
            for name in ("leaf", "top", "part", "first_row", "rows")
        )
    )
