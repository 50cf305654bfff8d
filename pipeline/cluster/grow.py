"""Grow a tree of cells: k-means on a bounded subset, then inside each cell.

The cells are read from a sorted copy of the sample on disk.

Memory, besides the interpreter's, for vectors of `dim` numbers, w workers and a tree of 64-way
splits (`POINTS_PER_CENTROID` = 1,024):
    first level   min(sample, 1,024 k_1) * dim * 4 bytes
    sub-trees     leaves * dim * 4 + w * 1,024 * 64 * dim * 6
    polishing     leaves * dim * 14 + sample * 28
                  + w * MAXIMUM_SEARCH_ROWS * (dim * 6 + 4 * 64 * 2)

The first level takes float16, and in torch bfloat16 for the products up to 131,072 vectors. FAISS
converts 8,192 vectors at a time, which takes w * 8,192 * dim * 4 bytes. The sample
itself, dim * 2 bytes per vector, is a file, whose pages the system can drop.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float16, Float32, Int64

from data_catalog.format.layout import Levels
from pipeline.cluster.checkpoint import KmeansCheckpoint, read_arrays, write_arrays
from pipeline.cluster.kmeans import spherical_kmeans
from pipeline.cluster.sample import SampleRows, philox_generator, sort_by_cell
from pipeline.config import Cluster
from pipeline.threads import in_threads

logger = logging.getLogger(__name__)

_CELLS = 2  # purpose of random numbers: second word of a generator's key
# Maximum number of vectors per new centroid that train a split. All vectors are assigned to cells.
POINTS_PER_CENTROID = 1_024

Centroids = dict[int, Float32[np.ndarray, "cells dim"]]


@dataclass(frozen=True)
class GrownTree:
    centroids: Centroids  # by granularity
    sample: Float16[np.ndarray, "n dim"]  # on disk, sorted by cells of the first level


def grow(rows: SampleRows, levels: Levels, config: Cluster, seed: int, scratch: Path) -> GrownTree:
    """Split each cell of a level by k-means on its vectors.

    A cell with fewer distinct vectors than it should have children keeps empty ones, whose
    centroids are zero. `scratch` keeps each iteration of the first level, the sorted sample and
    each sub-tree. Another call resumes from there and gives the same bytes.
    """
    scratch.mkdir(parents=True, exist_ok=True)
    top = levels.granularities[0]
    first = rows.some(POINTS_PER_CENTROID * top, seed)
    logger.info("level %d: k-means on %d vectors", top, len(first))
    done = read_arrays(scratch / "top.npz")
    if done is None:
        cells = spherical_kmeans(
            first.read(),
            top,
            config,
            philox_generator(seed, _CELLS, 0, 0),
            workers=config.workers,
            checkpoint=KmeansCheckpoint(scratch / "iteration.npz"),
        )
        done = {str(top): cells.centroids}
        write_arrays(scratch / "top.npz", done)
    coarse = done[str(top)]
    sample, ends = sort_by_cell(rows, coarse, scratch, config.workers, config.backend)
    centroids: Centroids = {
        k: np.zeros((k, coarse.shape[1]), np.float32) for k in levels.granularities
    }
    centroids[top][:] = coarse
    if len(levels.granularities) == 1:
        return GrownTree(centroids, sample)
    logger.info(
        "sub-trees of %d cells: k-means on at most %d vectors per centroid, %d vectors in total",
        top,
        POINTS_PER_CENTROID,
        len(rows),
    )

    def sub_tree(cell: int) -> None:
        file = scratch / f"sub-tree-{cell:05d}.npz"
        arrays = read_arrays(file)
        if arrays is None:
            grown = _split(
                sample,
                np.arange(ends[cell] - counts[cell], ends[cell]),
                cell,
                levels.granularities,
                config,
                seed,
            )
            arrays = {str(k): array for k, array in grown.items()}
            write_arrays(file, arrays)
        for k in levels.granularities[1:]:
            span = k // top
            centroids[k][cell * span : (cell + 1) * span] = arrays[str(k)]

    counts = np.diff(ends, prepend=0)
    largest_first = np.argsort(-counts, kind="stable").tolist()
    in_threads(sub_tree, [cell for cell in largest_first if counts[cell]], config.workers)
    return GrownTree(centroids, sample)


def _split(
    sample: Float16[np.ndarray, "n dim"],
    rows: Int64[np.ndarray, " rows"],
    cell: int,
    granularities: Sequence[int],
    config: Cluster,
    seed: int,
) -> Centroids:
    """Return the centroids of all levels below `cell`.

    `cell` is one of the first granularity's cells, and holds these rows of the sample.
    """
    above, k, *_ = granularities
    b = k // above
    x = sample[rows[0] : rows[-1] + 1] if rows[-1] - rows[0] + 1 == len(rows) else sample[rows]
    split = spherical_kmeans(
        x, b, config, philox_generator(seed, _CELLS, cell, k), most_points=POINTS_PER_CENTROID * b
    )
    grown: Centroids = {k: split.centroids}
    if len(granularities) == 2:
        return grown
    for finer in granularities[2:]:
        grown[finer] = np.zeros((finer // above, x.shape[1]), np.float32)
    order = np.argsort(split.cell, kind="stable")
    for child, members in enumerate(
        np.split(order, np.cumsum(np.bincount(split.cell, minlength=b))[:-1])
    ):
        if len(members):
            for finer, below in _split(
                sample, rows[members], cell * b + child, granularities[1:], config, seed
            ).items():
                span = finer // k
                grown[finer][child * span : (child + 1) * span] = below
    return grown
