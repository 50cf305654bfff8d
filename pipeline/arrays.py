"""Array files that are written piece by piece, in NumPy's format.

They are not written through memory maps. If the disk is full, a write to a map ends the process
with SIGBUS, whereas a write to a file raises an error that can be reported.
"""

from pathlib import Path
from typing import BinaryIO

import numpy as np
from jaxtyping import Float16, Int64


def begin_array(file: BinaryIO, shape: tuple[int, int]) -> int:
    """Write the header of a float16 array of `shape`, and return its length in bytes.

    The rows follow the header in order, without gaps.
    """
    header = {
        "descr": np.lib.format.dtype_to_descr(np.dtype(np.float16)),
        "fortran_order": False,
        "shape": shape,
    }
    np.lib.format.write_array_header_1_0(file, header)
    return file.tell()


def write_rows(
    path: Path,
    header_bytes: int,
    places: Int64[np.ndarray, " n"],
    rows: Float16[np.ndarray, "n dim"],
) -> None:
    """Write `rows` to their `places` in the array file at `path`. Other rows are not touched.

    Several threads may write different rows of one file. Rows whose places are consecutive are
    written at once.
    """
    order = np.argsort(places, kind="stable")
    places, rows = places[order], rows[order]
    ends = [*(np.flatnonzero(np.diff(places) != 1) + 1).tolist(), len(places)]
    start, row_bytes = 0, rows.shape[1] * rows.itemsize
    with path.open("r+b") as file:
        for end in ends:
            file.seek(header_bytes + int(places[start]) * row_bytes)
            file.write(rows[start:end].tobytes())
            start = end
