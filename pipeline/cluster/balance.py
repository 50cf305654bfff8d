"""Mend cells of k-means that are empty, too small or too large.

A small cell gives up its place, and a large one is split into it.
"""

import numpy as np
from jaxtyping import Float16, Float32, Int64

from pipeline.config import Cluster

_SPLIT_MEMBERS = 1_024  # sampled members of a split cell, enough to find its longest axis
_POWER_STEPS = 5
# A cell whose rows are all within this distance of its mean has copies of one vector.
_COPY_DISTANCE = 1e-4


def smallest_allowed(rows: int, cells: int, config: Cluster) -> float:
    """Return the minimum rows of a cell. Below one, only an empty cell is too small."""
    return max(1.0, config.least_share * rows / cells)


def rebalance(
    x: Float16[np.ndarray, "n dim"],
    cells: Int64[np.ndarray, " n"],
    centroids: Float32[np.ndarray, "k dim"],
    config: Cluster,
) -> Float32[np.ndarray, "k dim"]:
    """Return the centroids for k-means' next iteration, given the cells and their means.

    The largest cells are split in two across their longest direction, and one half replaces a cell
    that is too small. This ends when no cell is too small or too large, or when none can be split.
    The next iteration moves the rows.
    """
    k = len(centroids)
    counts = np.bincount(cells, minlength=k).astype(np.float64)
    least, most = smallest_allowed(len(x), k, config), (config.most_share or np.inf) * len(x) / k
    places = np.argsort(counts, kind="stable").tolist()  # smallest first
    centroids = centroids.copy()
    while places and counts.any():
        place, large = places[0], int(counts.argmax())
        if counts[place] >= least and (counts[large] <= most or counts[place] > counts[large] / 4):
            break
        halves = _halves(x, cells, large, centroids[large]) if place != large else None
        if halves is None:
            counts[large] = 0  # copies of one vector are not split again
            places.remove(large)
            continue
        centroids[large], centroids[place] = halves
        counts[large] = counts[place] = 0
        places = [p for p in places if p not in (place, large)]
    return centroids


def _halves(
    x: Float16[np.ndarray, "n dim"],
    cells: Int64[np.ndarray, " n"],
    cell: int,
    centroid: Float32[np.ndarray, " dim"],
) -> Float32[np.ndarray, "two dim"] | None:
    """Return two centroids on either side of one, or None if its rows are copies.

    Their distance is that of the rows along their longest direction.
    """
    members = np.flatnonzero(cells == cell)
    some = x[members[:: -(-len(members) // _SPLIT_MEMBERS)]].astype(np.float64)
    away = some - some.mean(axis=0)
    direction = away[np.square(away).sum(axis=1).argmax()]
    if np.linalg.norm(direction) < _COPY_DISTANCE:
        return None
    for _ in range(_POWER_STEPS):
        direction = np.einsum(
            "nd,n->d", away, np.einsum("nd,d->n", away, direction / np.linalg.norm(direction))
        )
    direction /= np.linalg.norm(direction)
    spread = float(np.sqrt(np.square(np.einsum("nd,d->n", away, direction)).mean()))
    halves = centroid + np.array([[spread], [-spread]]) * direction
    return (halves / np.linalg.norm(halves, axis=1, keepdims=True)).astype(np.float32)
