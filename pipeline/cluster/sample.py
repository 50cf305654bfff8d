"""Vectors that a tree is trained on: rows of several parts, and one sorted copy on disk."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float16, Int64

from data_catalog.temporary import replacing
from pipeline.arrays import ArrayFile, begin_array, write_rows
from pipeline.cluster.backends.backend import nearest_cells
from pipeline.cluster.checkpoint import read_arrays, write_arrays
from pipeline.cluster.kmeans import unit_rows
from pipeline.config import ClusterBackend
from pipeline.threads import in_threads

_SAMPLING, _FIRST_LEVEL = 1, 3  # purposes of random numbers: second word of a generator's key
READ_ROWS = 65_536  # rows read at once

Vectors = ArrayFile | Float16[np.ndarray, "_documents dim"]


@dataclass(frozen=True)
class SampleRows:
    """Rows of several arrays, in order."""

    arrays: Sequence[Vectors]
    taken: Sequence[Int64[np.ndarray, " _rows"]]  # ascending rows of each array

    def __len__(self) -> int:
        return sum(map(len, self.taken))

    def chunks(self) -> Iterator[tuple[slice, int, Int64[np.ndarray, " n"]]]:
        """Yield at most `READ_ROWS` rows at a time.

        Each item is the slice of the whole, the number of the array, and its rows.
        """
        first = 0
        for i, rows in enumerate(self.taken):
            for start in range(0, len(rows), READ_ROWS):
                piece = rows[start : start + READ_ROWS]
                yield slice(first, first + len(piece)), i, piece
                first += len(piece)

    def read(self) -> Float16[np.ndarray, "n dim"]:
        """Return all rows, scaled to unit norm."""
        vectors = np.empty((len(self), self.arrays[0].shape[1]), np.float16)
        for place, i, rows in self.chunks():
            vectors[place] = unit_rows(self.arrays[i][rows])
        return vectors

    def some(self, size: int, seed: int) -> "SampleRows":
        """Return `size` rows at random, or all if there are fewer."""
        if size >= len(self):
            return self
        chosen = np.sort(
            philox_generator(seed, _FIRST_LEVEL, 0, 0).choice(len(self), size, replace=False)
        )
        ends = np.cumsum([len(rows) for rows in self.taken])
        parts = np.split(chosen, np.searchsorted(chosen, ends[:-1]))
        return SampleRows(
            self.arrays,
            [
                rows[part - (end - len(rows))]
                for rows, part, end in zip(self.taken, parts, ends, strict=True)
            ],
        )


def philox_generator(seed: int, purpose: int, *number: int) -> np.random.Generator:
    """Return the random generator for one purpose and item (two numbers)."""
    return np.random.Generator(
        np.random.Philox(key=np.array([seed % 2**64, purpose], np.uint64), counter=[0, 0, *number])
    )


def draw_sample(
    arrays: Sequence[Vectors], size: int, held_out: int, seed: int
) -> tuple[SampleRows, SampleRows]:
    """Return `size` rows and `held_out` others, sampled without replacement.

    Both have rows of every part, in proportion to its rows.
    """
    ends = np.cumsum([len(x) for x in arrays])
    # Rounded so that they add up to the size.
    quotas = np.diff(ends * (size + held_out) // ends[-1], prepend=0)
    held = np.diff(np.cumsum(quotas) * held_out // (size + held_out), prepend=0)
    drawn = []
    for i, (x, quota) in enumerate(zip(arrays, quotas.tolist(), strict=True)):
        rows = philox_generator(seed, _SAMPLING, 0, i).choice(len(x), quota, replace=False)
        drawn.append((np.sort(rows[held[i] :]), np.sort(rows[: held[i]])))
    return SampleRows(arrays, [rows for rows, _ in drawn]), SampleRows(
        arrays, [rows for _, rows in drawn]
    )


def sort_by_cell(
    rows: SampleRows,
    centroids: np.ndarray,
    folder: Path,
    workers: int,
    backend: ClusterBackend = "auto",
) -> tuple[Float16[np.ndarray, "n dim"], Int64[np.ndarray, " cells"]]:
    """Return the vectors sorted by their nearest centroid, and the end of each cell.

    The vectors are memory-mapped from a file in `folder`. A counting sort makes it in two passes:
    one finds the cells, one writes each vector to its place. A finished file is not made again.
    """
    file, counted = folder / "sample.npy", folder / "ends.npz"
    counts = read_arrays(counted)
    if counts is None:
        cells = np.zeros(len(rows), np.int64)

        def find(chunk: tuple[slice, int, np.ndarray]) -> None:
            place, i, taken = chunk
            cells[place] = nearest_cells(
                unit_rows(rows.arrays[i][taken]), centroids, backend=backend
            )[0]

        in_threads(find, rows.chunks(), workers)
        places = np.empty(len(rows), np.int64)
        places[np.argsort(cells, kind="stable")] = np.arange(len(rows))
        ends = np.cumsum(np.bincount(cells, minlength=len(centroids)))
        del cells
        with replacing(file) as temporary:
            with temporary.open("wb") as opened:
                header_bytes = begin_array(opened, (len(rows), centroids.shape[1]))

            def write(chunk: tuple[slice, int, np.ndarray]) -> None:
                place, i, taken = chunk
                vectors = unit_rows(rows.arrays[i][taken]).astype(np.float16)
                write_rows(temporary, header_bytes, places[place], vectors)

            in_threads(write, rows.chunks(), workers)
        counts = {"ends": ends}
        write_arrays(counted, counts)
    return np.load(file, mmap_mode="r", allow_pickle=False), counts["ends"]
