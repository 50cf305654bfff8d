"""k-means in FAISS: `faiss.Clustering` on float16 rows, and the tree as inverted lists.

The children of a cell are an inverted list, so that a level is an `IndexIVFFlat` and a beam is the
number of lists that a query visits. With `faiss-gpu`, all indexes are on the first visible GPU.
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import cache
from itertools import pairwise
from threading import RLock
from typing import Any

import faiss
import numpy as np
from jaxtyping import Float, Float16, Float32, Int64

from pipeline.cluster.backends.backend import SaveIteration, Search, nearest_cells, run_iterations
from pipeline.cluster.tree import Tree
from pipeline.config import Cluster
from pipeline.threads import cores

_DECODED_ROWS = 8_192  # rows that training converts to float32 at once
_gpu = RLock()  # threads cannot share a GPU's resources


def has_gpu() -> bool:
    """Return whether the installed FAISS can use a GPU, and there is one."""
    return hasattr(faiss, "StandardGpuResources") and faiss.get_num_gpus() > 0


@cache
def _gpu_resources() -> Any:
    return faiss.StandardGpuResources()


def _placed(index: Any) -> Any:
    """Return the index on the first GPU if FAISS has one, else as it is."""
    return faiss.index_cpu_to_gpu(_gpu_resources(), 0, index) if has_gpu() else index


def flat_index(dim: int) -> Any:
    """Return an empty index of inner products."""
    return _placed(faiss.IndexFlatIP(dim))


@contextmanager
def faiss_threads(workers: int) -> Iterator[None]:
    """Let this thread's calls of FAISS use some threads, or one per core (0).

    OpenMP keeps their number per calling thread. Only one thread at a time uses a GPU.
    """
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(workers or cores())
    try:
        with _gpu if has_gpu() else nullcontext():
            yield
    finally:
        faiss.omp_set_num_threads(before)


class FaissBackend:
    """See `pipeline.cluster.backends.backend.Backend`."""

    name = "faiss"

    def __init__(self) -> None:
        self.device = "cuda" if has_gpu() else "cpu"

    def train(
        self,
        x: Float16[np.ndarray, "n dim"],
        centroids: Float32[np.ndarray, "k dim"],
        config: Cluster,
        workers: int = 1,
        first: int = 0,
        save: SaveIteration | None = None,
    ) -> Float32[np.ndarray, "k dim"]:
        k, dim = centroids.shape
        parameters = faiss.ClusteringParameters()
        parameters.niter = 1
        parameters.spherical = True
        parameters.min_points_per_centroid = 1
        parameters.max_points_per_centroid = len(x)
        parameters.decode_block_size = _DECODED_ROWS
        codes = np.ascontiguousarray(x).view(np.uint8)
        codec = faiss.IndexScalarQuantizer(dim, faiss.ScalarQuantizer.QT_fp16)
        bounded = config.least_share > 0 or config.most_share is not None

        def step(
            current: Float32[np.ndarray, "k dim"],
        ) -> tuple[Int64[np.ndarray, " n"] | None, Float32[np.ndarray, "k dim"]]:
            # FAISS splits large cells into empty ones, but does not say who is in which cell.
            cells = nearest_cells(x, current, workers, "faiss")[0] if bounded else None
            clustering = faiss.Clustering(dim, k, parameters)
            faiss.copy_array_to_vector(current.ravel(), clustering.centroids)
            with faiss_threads(workers):
                clustering.train_encoded(codes, codec, flat_index(dim))
            return cells, faiss.vector_to_array(clustering.centroids).reshape(k, dim)

        return run_iterations(x, centroids, step, config, first, save)

    def search(self, tree: Tree, beam: int) -> Search:
        return _TreeSearch(tree, beam)


class _TreeSearch:
    """A tree as indexes of FAISS."""

    def __init__(self, tree: Tree, beam: int) -> None:
        first, leaves = tree.levels.granularities[0], tree.levels.leaves
        self.cells = np.flatnonzero(tree.filled[first])
        with faiss_threads(1):
            self.top = flat_index(tree.dimension)
            self.top.add(tree.centroids[first][self.cells])
            # Per level: how many cells are found, and how far below the best a cell is followed.
            self.few = [
                1 if k == leaves else min(beam, int(tree.filled[k].sum()))
                for k in tree.levels.granularities
            ]
            self.margins = tree.margins or (np.inf,) * len(self.few[1:])
            self.lower = [
                _placed(_lists(tree, above, k, followed))
                for (above, k), followed in zip(
                    pairwise(tree.levels.granularities), self.few, strict=False
                )
            ]

    def __call__(
        self, x: Float[np.ndarray, "n dim"]
    ) -> tuple[Int64[np.ndarray, " n"], Float32[np.ndarray, " n"]]:
        rows = np.ascontiguousarray(x, dtype=np.float32)
        lengths = np.sqrt(np.vecdot(rows, rows)).clip(min=np.finfo(np.float32).tiny)
        with faiss_threads(1):
            cosine, place = self.top.search(rows, self.few[0])
            cell = self.cells[place]
            for margin, few, index in zip(self.margins, self.few[1:], self.lower, strict=True):
                near = cosine >= cosine[:, :1] - np.float32(margin) * lengths[:, None]
                # In order of cells, so that the first one counts on a tie. FAISS skips -1.
                followed = np.sort(np.where(near, cell, -1), axis=1)
                cosine, cell = index.search_preassigned(rows, few, followed, None)
        return cell[:, 0], cosine[:, 0] / lengths


def _lists(tree: Tree, above: int, k: int, followed: int) -> Any:
    """Return an index of the filled cells of level `k`, listed under their parents."""
    quantizer = faiss.IndexFlatIP(tree.dimension)
    quantizer.add(tree.centroids[above])
    index = faiss.IndexIVFFlat(quantizer, tree.dimension, above, faiss.METRIC_INNER_PRODUCT)
    index.is_trained = True
    index.nprobe = followed
    cells = np.flatnonzero(tree.filled[k])
    centroids, parents = np.ascontiguousarray(tree.centroids[k][cells]), cells // (k // above)
    index.add_core(
        len(cells), faiss.swig_ptr(centroids), faiss.swig_ptr(cells), faiss.swig_ptr(parents)
    )
    return index
