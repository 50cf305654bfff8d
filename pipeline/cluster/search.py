"""Find each vector's leaf by following a few cells down the tree."""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Float32, UInt32

from data_catalog.errors import UserError
from pipeline.cluster.backends.backend import load_backend, nearest_cells
from pipeline.cluster.kmeans import nearest_centroid, squared_distance, unit_rows
from pipeline.cluster.tree import Tree
from pipeline.config import ClusterBackend
from pipeline.threads import in_threads, one_thread, pieces

MAXIMUM_SEARCH_COSINES = 2**26  # maximum number of cosines with the first level at once
# Minimum and maximum number of vectors that a thread searches at once.
MINIMUM_SEARCH_ROWS, MAXIMUM_SEARCH_ROWS = 16_384, 65_536
SEARCH_ROWS_PER_PARENT = 16  # more vectors for many cells, so that each product has several rows
# Share of vectors whose nearest leaf has a parent outside the margins.
MARGIN_MISS_SHARE = 0.01
MINIMUM_MARGIN_VECTORS = 500  # vectors needed to learn margins


@dataclass(frozen=True)
class Recall:
    """Quality of the search down the tree, compared with a search of every leaf."""

    found: float  # share of the vectors whose nearest leaf the search finds
    excess: float  # relative excess of the mean squared distance over that of exact search


@one_thread()
def assign_leaves(
    x: Float[np.ndarray, "n dim"],
    tree: Tree,
    beam: int,
    workers: int = 1,
    backend: ClusterBackend = "auto",
) -> tuple[UInt32[np.ndarray, " n"], Float32[np.ndarray, " n"]]:
    """Return the leaf of each vector and the squared distance `2 - 2 cos` to its centroid.

    Distances are float32. At each level the search follows the cells whose cosine is within the
    tree's margin of the best one's, and at most the `beam` best (more if they are equal). In a tree
    without margins it follows the `beam` best. The vectors' lengths do not matter.

    Raises:
        UserError: The vectors have another dimension than the centroids.
    """
    if x.shape[1] != tree.dimension:
        raise UserError(
            f"tree: it has {tree.dimension} dimensions, but the vectors have {x.shape[1]}. "
            "Embed with the encoder of the tree."
        )
    leaves, distances = np.zeros(len(x), np.uint32), np.zeros(len(x), np.float32)
    search = load_backend(backend).search(tree, beam)

    def find(part: slice) -> None:
        leaf, cosine = search(x[part])
        leaves[part], distances[part] = leaf, squared_distance(cosine)

    first, *_ = tree.levels.granularities
    parents = tree.levels.granularities[-2] if len(tree.levels.granularities) > 1 else 1
    rows = min(
        max(MINIMUM_SEARCH_ROWS, SEARCH_ROWS_PER_PARENT * parents),
        MAXIMUM_SEARCH_ROWS,
        max(MAXIMUM_SEARCH_COSINES // first, 32),
    )
    in_threads(find, pieces(len(x), rows), workers)
    return leaves, distances


def recall(x: Float[np.ndarray, "n dim"], tree: Tree, beam: int) -> Recall:
    """Compare `assign_leaves` with the exact search of every leaf."""
    leaves, distances = assign_leaves(x, tree, beam)
    exact, least = nearest_centroid(unit_rows(x), tree.centroids[tree.levels.leaves])
    if not len(x):
        return Recall(1.0, 0.0)
    mean = float(least.mean(dtype=np.float64))
    return Recall(
        float((leaves == exact).mean()),
        float(distances.mean(dtype=np.float64)) / mean - 1 if mean > 0 else 0.0,
    )


@one_thread()
def with_margins(
    x: Float[np.ndarray, "n dim"],
    tree: Tree,
    workers: int = 1,
    backend: ClusterBackend = "auto",
) -> Tree:
    """Return the tree with margins that let most vectors find their nearest leaf.

    With them, about `1 - MARGIN_MISS_SHARE` of vectors like `x` do, if the beam allows. The nearest
    leaf of each vector is found among all leaves. A level's margin is a quantile of the difference
    between the level's best cosine and that of the cell above this leaf. The vectors should not be
    those that the tree was trained on, because those lie deeper inside their cells and would give
    margins that are too narrow. With fewer than `MINIMUM_MARGIN_VECTORS` vectors the tree gets no
    margins.
    """
    *upper, leaves = tree.levels.granularities
    if not upper or len(x) < MINIMUM_MARGIN_VECTORS:
        return replace(tree, margins=None)
    some = unit_rows(x)
    leaf, _ = nearest_cells(some, tree.centroids[leaves], workers, backend)
    margins = []
    for k in upper:
        _, best = nearest_cells(some, tree.centroids[k], workers, backend)
        own = np.vecdot(some, tree.centroids[k][leaf // (leaves // k)])
        margins.append(
            float(np.quantile(np.maximum(best - own, 0), 1 - MARGIN_MISS_SHARE / len(upper)))
        )
    return replace(tree, margins=tuple(margins))


def out_of_distribution(
    leaves: UInt32[np.ndarray, " n"], distances: Float32[np.ndarray, " n"], tree: Tree
) -> float:
    """Return the share of vectors farther from their leaf's centroid than 99 % of its sample.

    `leaves` and `distances` are the result of `assign_leaves`. Vectors that training did not see
    lie farther out than those it saw, so compare with the held-out documents' share in `tree.json`
    and not with 1 %.

    Raises:
        UserError: The tree has no radii of its leaves.
    """
    if tree.radius is None:
        raise UserError(
            "tree: it has no radii of its leaves. Build the catalog's cluster stage again."
        )
    return float((distances > tree.radius[leaves]).mean()) if len(leaves) else 0.0
