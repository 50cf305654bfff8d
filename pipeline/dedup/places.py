"""Places of documents: the number of the part and the row in one integer.

Sorting by place gives the reading order.
"""

import numpy as np
from jaxtyping import Int64

_ROW_BITS = 40

Places = Int64[np.ndarray, " documents"]  # ascending


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
