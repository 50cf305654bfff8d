"""Array files that are written piece by piece and read by rows, in NumPy's format.

They are not written through memory maps. If the disk is full, a write to a map ends the process
with SIGBUS, whereas a write to a file raises an error that can be reported.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from jaxtyping import Float16, Int64


@dataclass(frozen=True)
class ArrayFile:
    """A float16 array file. It is open only while rows are read, so there may be any number."""

    path: Path
    shape: tuple[int, int]
    header_bytes: int

    @classmethod
    def find(cls, path: Path) -> "ArrayFile":
        """Read the header of an array file.

        Raises:
            ValueError: It is no array file of float16 rows.
        """
        with path.open("rb") as file:
            version = np.lib.format.read_magic(file)
            shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
            start = file.tell()
        if version != (1, 0) or fortran or dtype != np.float16 or len(shape) != 2:
            raise ValueError(f"{path}: found {dtype} of shape {shape}, expected rows of float16")
        return cls(path, shape, start)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Int64[np.ndarray, " n"]) -> Float16[np.ndarray, "n dim"]:
        """Return a copy of these rows."""
        return np.asarray(self.map()[rows])

    def map(self) -> Float16[np.ndarray, "_rows dim"]:
        """Return a memory map of all rows. The file stays open while the map or a view exists."""
        return np.memmap(self.path, np.float16, "r", self.header_bytes, self.shape)


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
