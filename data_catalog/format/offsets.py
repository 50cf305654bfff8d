"""Positions of each leaf's rows and tokens in the files of a catalog."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Bool, Int, Integer

from data_catalog.format import tables
from data_catalog.format.damage import require
from data_catalog.format.files import CatalogFiles


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


def read_offsets_table(files: CatalogFiles, columns: Sequence[str] | None = None) -> pa.Table:
    """Return the offsets of a catalog, in any order of rows.

    Args:
        files: The catalog.
        columns: Names in `tables.OFFSETS`. None means all.

    Raises:
        DamagedFileError: The table cannot be read, or has impossible values.
    """
    path = files.layout.offsets
    table = files.read_table(path, tables.OFFSETS, columns)
    require(path, not any(column.null_count for column in table.columns), "a value is missing")
    for name in table.column_names if table.num_rows else ():
        if name == "leaf":
            highest = files.levels.leaves - 1
            require(path, pc.max(table[name]).as_py() <= highest, f"a leaf exceeds {highest}")
        elif name != "split":
            require(path, pc.min(table[name]).as_py() >= 0, f"a number of {name} is negative")
    return table


def read_offsets(files: CatalogFiles) -> Offsets:
    """Return the columns of a catalog's offsets, sorted by leaf.

    Raises:
        DamagedFileError: See `read_offsets_table`.
    """
    names = [field.name for field in fields(Offsets)]
    table = read_offsets_table(files, names).sort_by("leaf")
    return Offsets(*(table[name].to_numpy().astype(np.int64) for name in names))
