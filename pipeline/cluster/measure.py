"""Measures of a tree: sizes of cells, distances of vectors, and misses of the search."""

import logging
from dataclasses import replace
from typing import Any

import numpy as np
from jaxtyping import Float, Int64

from pipeline.cluster.kmeans import nearest_centroid, unit_rows
from pipeline.cluster.search import assign_leaves, out_of_distribution
from pipeline.cluster.tree import Tree
from pipeline.config import ClusterBackend

logger = logging.getLogger(__name__)

MEASURE_BEAMS = (1, 2, 4, 8, 16)  # beams with which the search is measured
MEASURE_BEAM = 8


def with_radius(
    tree: Tree,
    sample: Float[np.ndarray, "n dim"],
    within: float,
    workers: int,
    backend: ClusterBackend = "auto",
) -> tuple[Tree, Int64[np.ndarray, " leaves"], float]:
    """Return the tree with its leaves' radii, the sample's count by leaf and its mean distance.

    A radius is the squared distance that a share `within` of the leaf's vectors do not exceed (an
    order statistic, rounded up). A leaf without vectors gets the quantile over all vectors.
    """
    leaves, distances = assign_leaves(sample, tree, MEASURE_BEAM, workers, backend)
    order = np.lexsort((distances, leaves))
    counts = np.bincount(leaves, minlength=tree.levels.leaves)
    last = np.cumsum(counts) - counts + np.ceil(within * counts).astype(np.int64) - 1
    radius = np.full(len(counts), np.quantile(distances, within), np.float32)
    radius[counts > 0] = distances[order[last[counts > 0]]]
    radius[~tree.filled[tree.levels.leaves]] = 0
    return replace(tree, radius=radius), counts, float(distances.mean(dtype=np.float64))


def measure_tree(
    tree: Tree,
    counts: Int64[np.ndarray, " leaves"],
    x: Float[np.ndarray, "n dim"],
    backend: ClusterBackend = "auto",
) -> dict[str, Any]:
    """Return by level the sizes of the cells in the sample, and measures on unseen vectors `x`.

    `counts` are the sample's vectors per leaf. `inertia` is the mean squared distance `2 - 2 cos`
    of `x` to the nearest cell. `search` has, by beam, the share of `x` for which the search finds
    that cell, and the relative excess of its inertia. `beyond` (leaves only) is the share of `x`
    outside its leaf's radius. These three are left out if `x` is empty.
    """
    measures: dict[str, Any] = {}
    for k in tree.levels.granularities:
        sizes = counts.reshape(k, -1).sum(axis=1)
        filled = np.sort(sizes[tree.filled[k]])
        measures[str(k)] = {
            "empty": int(k - tree.filled[k].sum()),
            "sizes": {
                "smallest": int(filled[0]),
                "median": float(np.median(filled)),
                "largest": int(filled[-1]),
            },
        }
        if len(x):
            measures[str(k)] |= _searched(tree.to_level(k), x, backend)
    if len(x):
        measures[str(tree.levels.leaves)]["beyond"] = out_of_distribution(
            *assign_leaves(x, tree, MEASURE_BEAM, backend=backend), tree
        )
    return measures


def _searched(tree: Tree, x: Float[np.ndarray, "n dim"], backend: ClusterBackend) -> dict[str, Any]:
    leaf, exact = nearest_centroid(unit_rows(x), tree.centroids[tree.levels.leaves])
    inertia = float(exact.mean(dtype=np.float64))
    search = {}
    for beam in MEASURE_BEAMS:
        assigned, distances = assign_leaves(x, tree, beam, backend=backend)
        excess = float(distances.mean(dtype=np.float64)) / inertia - 1 if inertia > 0 else 0.0
        search[str(beam)] = {"found": float((assigned == leaf).mean()), "excess": excess}
    logger.info(
        "level %d: inertia %.4f. With beam %d the search finds the nearest cell for %.2f %% of the "
        "vectors, and its inertia differs by %+.2f %%.",
        tree.levels.leaves,
        inertia,
        MEASURE_BEAM,
        100 * search[str(MEASURE_BEAM)]["found"],
        100 * search[str(MEASURE_BEAM)]["excess"],
    )
    return {"inertia": inertia, "search": search}
