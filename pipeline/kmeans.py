"""Spherical k-means and nearest centroids, on arrays. A row of zeros among the centroids is an empty cell."""

from typing import Any

import faiss
import numpy as np
from jaxtyping import Float, Float32, Int64

ALL_POINTS = 2**31 - 1  # faiss takes 256 points a centroid otherwise, without a word
PLUS_PLUS_CENTROIDS = 512  # above that, k-means++ costs more than it gains; its Markov-chain approximation starts nearly as well


def unit(x: Float[np.ndarray, "n dim"]) -> Float32[np.ndarray, "n dim"]:
    """`x` in float32, each row scaled to length 1; a row of zeros stays."""
    x = np.ascontiguousarray(x, dtype=np.float32)
    norms = np.linalg.norm(x, axis=1, keepdims=True)
    scaled: Float32[np.ndarray, "n dim"] = x / np.where(norms > 0, norms, 1)
    return scaled


def spherical_kmeans(x: Float32[np.ndarray, "n dim"], k: int, iterations: int, seed: int) -> Float32[np.ndarray, "k dim"]:
    """Centroids of unit length for the unit vectors `x`: Lloyd's iterations of FAISS, which lower the mean of `2 - 2 cos`.

    Every row has a point of `x` nearer to it than to the others, or is zero: an empty cell.
    With at most k different points, each is a centroid of its own.
    """
    distinct = _distinct(x, k)
    if len(distinct) <= k:
        return np.concatenate([unit(distinct), np.zeros((k - len(distinct), x.shape[1]), np.float32)])
    trainer: Any = faiss.Kmeans(
        x.shape[1],
        k,
        niter=iterations,
        seed=seed % 2**31,  # negative means the clock
        spherical=True,
        min_points_per_centroid=1,
        max_points_per_centroid=ALL_POINTS,
        init_method=faiss.ClusteringInitMethod_KMEANS_PLUS_PLUS if k <= PLUS_PLUS_CENTROIDS else faiss.ClusteringInitMethod_AFK_MC2,
    )
    trainer.index = _index(x.shape[1])
    trainer.train(x)
    centroids = unit(trainer.centroids)
    reached = np.bincount(nearest(x, centroids)[0], minlength=k) > 0
    centroids[~reached] = 0
    return centroids


def nearest(
    x: Float32[np.ndarray, "n dim"], centroids: Float32[np.ndarray, "k dim"]
) -> tuple[Int64[np.ndarray, " n"], Float32[np.ndarray, " n"]]:
    """For each unit vector the nearest centroid that is not zero, and its squared distance `2 - 2 cos`."""
    found, cosine = nearest_few(x, centroids, 1)
    return found[:, 0], distance(cosine[:, 0])


def nearest_few(
    x: Float32[np.ndarray, "n dim"], centroids: Float32[np.ndarray, "k dim"], few: int
) -> tuple[Int64[np.ndarray, "n few"], Float32[np.ndarray, "n few"]]:
    """For each unit vector the nearest centroids and their cosines, best first; as many as are not zero if those are fewer.

    Raises:
        ValueError: all centroids are zero.
    """
    filled = np.flatnonzero(centroids.any(axis=1))
    if not len(filled):
        raise ValueError("all centroids are rows of zeros: there is no nearest one")
    few = min(few, len(filled))
    if not len(x):
        return np.zeros((0, few), np.int64), np.zeros((0, few), np.float32)
    index = _index(x.shape[1])
    index.add(np.ascontiguousarray(centroids[filled]))
    cosine, place = index.search(np.ascontiguousarray(x), few)
    return filled[place], cosine


def distance(cosine: Float32[np.ndarray, " n"]) -> Float32[np.ndarray, " n"]:
    """Squared Euclidean distance of two unit vectors; rounding never makes it negative."""
    squared: Float32[np.ndarray, " n"] = np.maximum(2 - 2 * cosine, 0).astype(np.float32)
    return squared


def _distinct(x: Float32[np.ndarray, "n dim"], k: int) -> Float32[np.ndarray, "m dim"]:
    """The different rows of `x`, or just more than k of them."""
    head = np.unique(x[: 2 * k + 1], axis=0)  # nearly always enough, and far cheaper than sorting all
    return head if len(head) > k else np.unique(x, axis=0)


def _index(dimension: int) -> Any:
    """An inner-product index, on the first GPU where faiss has one (`faiss.Kmeans(gpu=...)` would take all)."""
    if hasattr(faiss, "StandardGpuResources") and faiss.get_num_gpus() > 0:
        return faiss.GpuIndexFlatIP(faiss.StandardGpuResources(), dimension)
    return faiss.IndexFlatIP(dimension)
