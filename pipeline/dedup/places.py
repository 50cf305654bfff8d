"""Places of documents: the number of the part and the row in one integer.

Sorting by place gives the reading order.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import duckdb
import numpy as np
from jaxtyping import Bool, Int64

_ROW_BITS = 40
_MEMORY = "1GB"  # DuckDB spills to the folder beyond this

Places = Int64[np.ndarray, " documents"]  # ascending
# Returns a mask of the documents of a part, by its number, that are still kept.
Alive = Callable[[int], Bool[np.ndarray, " documents"]]


def to_places(
    part: int | Int64[np.ndarray, " documents"], rows: Int64[np.ndarray, " documents"]
) -> Places:
    return (part << _ROW_BITS) + rows


def place_parts(places: Places) -> Int64[np.ndarray, " documents"]:
    return places >> _ROW_BITS


def place_rows(places: Places) -> Int64[np.ndarray, " documents"]:
    return places & ((1 << _ROW_BITS) - 1)


def places_in_part(part: int, places: Places) -> slice:
    """Return the slice of the ascending places that are in a part."""
    low, high = np.searchsorted(places, [part << _ROW_BITS, (part + 1) << _ROW_BITS]).tolist()
    return slice(low, high)


@contextmanager
def scratch_database(folder: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open an empty database in `folder`, and remove its files afterwards."""
    with TemporaryDirectory(dir=folder, prefix="dedup.") as inside:
        settings: dict[str, str | bool | int | float | list[str]] = {
            "memory_limit": _MEMORY,
            "temp_directory": f"{inside}/spill",
        }
        with duckdb.connect(f"{inside}/scratch.duckdb", config=settings) as connection:
            yield connection
