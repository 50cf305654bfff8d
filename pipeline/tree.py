"""The cluster tree: nested centroids, and the search for a vector's leaf."""

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from jaxtyping import Bool, Float, Float32, Int64, UInt32

from data_catalog.errors import UserError
from data_catalog.layout import Levels
from pipeline.kmeans import distance, nearest, nearest_few, unit

CENTROIDS = "centroids.npz"
CHUNK_COSINES = 2**23  # held at once by `assign`: with what is computed from them, about 150 MB


@dataclass(frozen=True)
class Tree:
    """Children of cell p of one level are cells `p * b` to `p * b + b - 1` of the next, b the ratio of their sizes."""

    levels: Levels
    centroids: dict[int, Float32[np.ndarray, "cells dim"]]  # by granularity; unit length, or zero: an empty cell

    def __post_init__(self) -> None:
        above = np.array([True])
        for k in self.levels.granularities:
            level = self.centroids.get(k)
            if level is None or level.ndim != 2 or len(level) != k:
                raise UserError(f"tree: level {k} has centroids of shape {None if level is None else level.shape}, expected [{k}, dim]")
            filled = self.filled[k]
            if not np.array_equal(filled.reshape(len(above), -1).any(axis=1), above):
                raise UserError(
                    f"tree: at level {k} a filled cell has only empty children, or an empty one has filled children; train it again"
                )
            above = filled

    @cached_property
    def filled(self) -> dict[int, Bool[np.ndarray, " cells"]]:
        """Which cells of each level are not empty."""
        return {k: np.asarray(level.any(axis=1)) for k, level in self.centroids.items()}

    @property
    def dimension(self) -> int:
        return int(self.centroids[self.levels.leaves].shape[1])


@dataclass(frozen=True)
class Recall:
    """How well the search down the tree does against looking at every leaf."""

    found: float  # share of the vectors for which it gives the nearest leaf
    excess: float  # of the mean squared distance over the exact one's, as a share of that


def load_tree(path: Path) -> Tree:
    """Read `centroids.npz`, or the one in the folder `path`: a part, or a catalog.

    Raises:
        UserError: there is none, or it is not a tree.
    """
    file = path / CENTROIDS if path.is_dir() else path
    try:
        with np.load(file, allow_pickle=False) as arrays:
            centroids = {int(name): arrays[name] for name in arrays.files}
    except (OSError, ValueError, BadZipFile) as error:
        raise UserError(f"{file}: no centroids can be read here ({error}); build the catalog, or its cluster stage, again") from error
    return Tree(Levels(tuple(sorted(centroids))), centroids)


def assign(x: Float[np.ndarray, "n dim"], tree: Tree, beam: int) -> tuple[UInt32[np.ndarray, " n"], Float32[np.ndarray, " n"]]:
    """The leaf of each vector, and the squared distance `2 - 2 cos` to its centroid.

    The search keeps the `beam` nearest cells of each level and looks at their children only; with at least as many as
    the next-to-last level has cells it is exact. The vectors' lengths do not matter.

    Raises:
        UserError: the vectors have another length than the centroids.
    """
    if x.shape[1] != tree.dimension:
        raise UserError(
            f"vectors of {x.shape[1]} dimensions, but a tree of {tree.dimension}: embed with the encoder the tree was made with"
        )
    leaves, distances = np.zeros(len(x), np.uint32), np.zeros(len(x), np.float32)
    rows = max(CHUNK_COSINES // (beam * _widest(tree)), 64)
    for first in range(0, len(x), rows):
        chunk = slice(first, first + rows)
        leaves[chunk], distances[chunk] = _search(unit(x[chunk]), tree, beam)
    return leaves, distances


def recall(x: Float[np.ndarray, "n dim"], tree: Tree, beam: int) -> Recall:
    """Compare `assign` with the exact search, which looks at every leaf."""
    leaves, distances = assign(x, tree, beam)
    exact, least = nearest(unit(x), tree.centroids[tree.levels.leaves])
    if not len(x):
        return Recall(1.0, 0.0)
    mean = float(least.mean(dtype=np.float64))
    return Recall(float((leaves == exact).mean()), float(distances.mean(dtype=np.float64)) / mean - 1 if mean > 0 else 0.0)


def _widest(tree: Tree) -> int:
    sizes = (1, *tree.levels.granularities)
    return max(fine // coarse for coarse, fine in pairwise(sizes))


def _search(x: Float32[np.ndarray, "n dim"], tree: Tree, beam: int) -> tuple[UInt32[np.ndarray, " n"], Float32[np.ndarray, " n"]]:
    above = 1
    cells: Int64[np.ndarray, "n beam"] = np.zeros((len(x), 1), np.int64)
    cosines: Float32[np.ndarray, "n beam"] = np.zeros((len(x), 1), np.float32)
    for k in tree.levels.granularities:
        few = 1 if k == tree.levels.leaves else beam
        if beam >= above:  # every parent is followed: look at all cells
            cells, cosines = nearest_few(x, tree.centroids[k], few)
        else:
            shape = (above, k // above)
            cells, cosines = _children(x, cells, tree.centroids[k].reshape(*shape, -1), tree.filled[k].reshape(shape), few)
        above = k
    return cells[:, 0].astype(np.uint32), distance(cosines[:, 0])


def _children(
    x: Float32[np.ndarray, "n dim"],
    parents: Int64[np.ndarray, "n beam"],
    children: Float32[np.ndarray, "cells b dim"],
    filled: Bool[np.ndarray, "cells b"],
    few: int,
) -> tuple[Int64[np.ndarray, "n few"], Float32[np.ndarray, "n few"]]:
    """The `few` nearest of the filled children of each vector's parents, best first; a place without one has cosine -inf."""
    (n, beam), b = parents.shape, children.shape[1]
    cosines = np.empty((n * beam, b), np.float32)
    order = np.argsort(parents, axis=None, kind="stable")  # pairs of vector and parent, grouped by parent: one product each
    numbers, starts = np.unique(parents.reshape(-1)[order], return_index=True)
    for parent, pairs in zip(numbers, np.split(order, starts[1:]), strict=True):
        cosines[pairs] = x[pairs // beam] @ children[parent].T
    cosines[~filled[parents.reshape(-1)]] = -np.inf
    cosines = cosines.reshape(n, beam * b)
    few = min(few, beam * b)
    best = np.argpartition(-cosines, few - 1, axis=1)[:, :few]
    best = np.take_along_axis(best, np.argsort(-np.take_along_axis(cosines, best, 1), axis=1, kind="stable"), 1)
    cells = np.take_along_axis(parents, best // b, 1) * b + best % b
    return cells, np.take_along_axis(cosines, best, 1)
