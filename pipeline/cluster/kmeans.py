"""Spherical k-means and nearest centroids, on arrays. A centroid of zeros is an empty cell."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float16, Float32, Int64

from pipeline.cluster.backends.backend import load_backend, nearest_cells
from pipeline.cluster.balance import smallest_allowed
from pipeline.cluster.checkpoint import KmeansCheckpoint
from pipeline.config import Cluster, ClusterBackend
from pipeline.threads import one_thread


@dataclass(frozen=True)
class Cells:
    """Centroids of unit norm, and the cell of each vector with its cosine."""

    centroids: Float32[np.ndarray, "k dim"]
    cell: Int64[np.ndarray, " n"]
    cosine: Float32[np.ndarray, " n"]


def unit_rows(x: Float[np.ndarray, "n dim"]) -> Float32[np.ndarray, "n dim"]:
    """Return `x` in float32, with each row scaled to unit norm. A row of zeros stays."""
    x = np.ascontiguousarray(x, dtype=np.float32)
    norms = np.sqrt(np.einsum("nd,nd->n", x, x))[:, None]
    scaled: Float32[np.ndarray, "n dim"] = x / np.where(norms > 0, norms, 1)
    return scaled


@one_thread()
def spherical_kmeans(
    x: Float16[np.ndarray, "n dim"],
    k: int,
    config: Cluster,
    random: np.random.Generator,
    *,
    most_points: int | None = None,
    workers: int = 1,
    checkpoint: KmeansCheckpoint | None = None,
) -> Cells:
    """Return k cells of the unit vectors `x`: k-means++, then the iterations of `config.backend`.

    At most `most_points` vectors, sampled at random, move the centroids; all of them get a cell.
    Every centroid either is the nearest one of some vector, or is zero. A cell with less than
    `config.least_share` of the mean is merged into its neighbours, and its centroid is zero. If
    there are at most k distinct vectors, each is a centroid.

    The same arguments give the same bytes on one kind of processor, with any number of threads,
    interrupted or not.
    """
    from pipeline.cluster.kmeans_plus_plus import choose_centroids  # noqa: PLC0415 - torch

    moving = x
    if most_points is not None and len(x) > most_points:
        moving = x[np.sort(random.choice(len(x), most_points, replace=False))]
    distinct = _distinct(moving, k)
    if len(distinct) <= k:
        return assign_and_merge(
            x,
            np.concatenate(
                [unit_rows(distinct), np.zeros((k - len(distinct), x.shape[1]), np.float32)]
            ),
            1,
            workers,
            config.backend,
        )
    done, centroids = (checkpoint.read() if checkpoint else None) or (
        0,
        choose_centroids(moving, k, random),
    )
    centroids = load_backend(config.backend).train(
        moving, centroids, config, workers, done, checkpoint.write if checkpoint else None
    )
    least = smallest_allowed(len(x), k, config)
    return assign_and_merge(x, centroids, least, workers, config.backend)


def assign_and_merge(
    x: Float16[np.ndarray, "n dim"],
    centroids: Float32[np.ndarray, "k dim"],
    least: float,
    workers: int = 1,
    backend: ClusterBackend = "auto",
) -> Cells:
    """Return each vector's nearest centroid, after small cells were merged.

    Centroids that are nearest to fewer than `least` vectors are set to zero, smallest first.
    """
    centroids = centroids.copy()
    while True:
        cell, cosine = nearest_cells(x, centroids, workers, backend)
        counts = np.bincount(cell, minlength=len(centroids))
        centroids[counts == 0] = 0
        small = np.flatnonzero((counts > 0) & (counts < least))
        if not len(small) or not len(x):
            return Cells(centroids, cell, cosine)
        smallest = small[np.argsort(counts[small], kind="stable")]
        # Remove half of them. The others may grow by the members of the removed ones.
        centroids[smallest[: -(-len(small) // 2)]] = 0


def nearest_centroid(
    x: Float32[np.ndarray, "n dim"], centroids: Float32[np.ndarray, "k dim"]
) -> tuple[Int64[np.ndarray, " n"], Float32[np.ndarray, " n"]]:
    """Return the nearest nonzero centroid of each unit vector, and its squared distance."""
    nearest, cosine = nearest_centroids(x, centroids, 1)
    return nearest[:, 0], squared_distance(cosine[:, 0])


def nearest_centroids(
    x: Float32[np.ndarray, "n dim"], centroids: Float32[np.ndarray, "k dim"], few: int
) -> tuple[Int64[np.ndarray, "n few"], Float32[np.ndarray, "n few"]]:
    """Return for each unit vector the nearest centroids and their cosines, best first.

    Centroids that are zero do not count. There are `few` of them, or all if those are fewer.

    Raises:
        ValueError: All centroids are zero.
    """
    # The trees of the other backends need no FAISS.
    from pipeline.cluster.backends.with_faiss import faiss_threads, flat_index  # noqa: PLC0415

    filled = np.flatnonzero(centroids.any(axis=1))
    if not len(filled):
        raise ValueError("centroids: all rows are zero. Expected at least one that is not.")
    few = min(few, len(filled))
    if not len(x):
        return np.zeros((0, few), np.int64), np.zeros((0, few), np.float32)
    with faiss_threads(0):
        index = flat_index(x.shape[1])
        index.add(np.ascontiguousarray(centroids[filled]))
        cosine, place = index.search(np.ascontiguousarray(x), few)
    return filled[place], cosine


def squared_distance(cosine: Float32[np.ndarray, " n"]) -> Float32[np.ndarray, " n"]:
    """Return the squared Euclidean distance of two unit vectors, `2 - 2 cos`, at least 0."""
    squared: Float32[np.ndarray, " n"] = np.maximum(2 - 2 * cosine, 0).astype(np.float32)
    return squared


def _distinct(x: Float16[np.ndarray, "n dim"], k: int) -> Float16[np.ndarray, "m dim"]:
    """Return the distinct rows of `x`, or just more than k of them."""
    # The head nearly always suffices, and is much faster to sort than all rows.
    head = np.unique(x[: 2 * k + 1], axis=0)
    return head if len(head) > k else np.unique(x, axis=0)
