"""Places of documents: the number of the part and the row in one integer.

Sorting by place gives the reading order.
"""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import duckdb
import numpy as np
from jaxtyping import Bool, Int64

from data_catalog.disk import writing
from data_catalog.temporary import remove, remove_unfinished, temporary_path

_ROW_BITS = 40
_SCRATCH = "clustermix-dedup"  # name of the folder of a database

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
def scratch_database(memory_megabytes: int) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open an empty database in this machine's folder for temporary files (TMPDIR).

    Its files are removed afterwards, and those that killed processes have left are removed before.
    """
    parent = Path(tempfile.gettempdir())
    with suppress(PermissionError):  # those of other users
        remove_unfinished([parent], _SCRATCH)
    folder = temporary_path(parent / _SCRATCH)
    with writing(folder):
        folder.mkdir(0o700)
        settings: dict[str, str | bool | int | float | list[str]] = {
            "memory_limit": f"{memory_megabytes}MiB",
            "temp_directory": f"{folder}/spill",
        }
        try:
            with duckdb.connect(f"{folder}/scratch.duckdb", config=settings) as connection:
                yield connection
        finally:
            remove(folder)
