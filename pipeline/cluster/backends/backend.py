"""The protocol of a library that trains centroids and finds cells, and the choice of one."""

from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from typing import Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Float16, Float32, Int64

from data_catalog.errors import UserError
from data_catalog.format.layout import Levels
from pipeline.cluster.balance import rebalance
from pipeline.cluster.tree import Tree
from pipeline.config import Cluster, ClusterBackend
from pipeline.threads import in_threads, pieces

SaveIteration = Callable[[int, Float32[np.ndarray, "k dim"]], None]
Search = Callable[
    [Float[np.ndarray, "n dim"]], tuple[Int64[np.ndarray, " n"], Float32[np.ndarray, " n"]]
]
MAXIMUM_PRODUCT_ROWS = 8_192  # per product, so that rows and cosines stay in the cache
MAXIMUM_PRODUCT_COSINES = 2**25  # per product


@runtime_checkable
class Backend(Protocol):
    """A library for k-means. Several threads may call its functions at once.

    On a processor, the results have the same bytes with any number of threads.
    """

    name: str
    device: str
    """Device that it computes on: "cpu" or "cuda"."""

    def train(
        self,
        x: Float16[np.ndarray, "n dim"],
        centroids: Float32[np.ndarray, "k dim"],
        config: Cluster,
        workers: int = 1,
        first: int = 0,
        save: SaveIteration | None = None,
    ) -> Float32[np.ndarray, "k dim"]:
        """Run iterations `first` to `config.iterations` of spherical k-means from `centroids`.

        They lower the mean of `2 - 2 cos` of the unit vectors `x` (n > k), and end early if
        nothing changes. After each iteration but the last, cells that are empty, or too small or
        too large for the config, are mended (see `pipeline.cluster.balance`).

        `save` is called after each iteration with the number of iterations done and the centroids.
        Pass these two to resume, with the same result.
        """
        ...

    def search(self, tree: Tree, beam: int) -> Search:
        """Prepare the search for the leaf of vectors, and return it.

        At each level, the search follows the cells whose cosine is within the tree's margin of
        the best one, and at most the `beam` best. It returns each vector's leaf and its cosine,
        whatever the vector's length.
        """
        ...


@cache
def load_backend(name: ClusterBackend) -> Backend:
    """Return the backend of that name. `auto` is the one that suits this machine."""
    match chosen_backend() if name == "auto" else name:
        case "faiss":
            from pipeline.cluster.backends.with_faiss import FaissBackend  # noqa: PLC0415

            return FaissBackend()
        case "flash":
            from pipeline.cluster.backends.with_flash import FlashBackend  # noqa: PLC0415

            return FlashBackend()
        case _:
            from pipeline.cluster.backends.with_torch import TorchBackend  # noqa: PLC0415

            return TorchBackend()


def chosen_backend() -> Literal["torch", "faiss"]:
    """Return the backend that `auto` stands for: faiss if it has a GPU, else torch.

    This is a rule for kinds of machines and not a measurement, whose noise would give another tree
    when a build is repeated. On a processor, FAISS takes 1.3 times as long as torch to train a tree
    of 64 x 64 leaves and 2.1 times as long to search it (`benchmarks/tree_backends.py`). On a GPU
    the rule has not been measured.
    """
    from pipeline.cluster.backends.with_faiss import has_gpu  # noqa: PLC0415

    return "faiss" if has_gpu() else "torch"


def check_backend(name: ClusterBackend) -> None:
    """Check that this machine can train with the backend.

    Raises:
        UserError: It is flash, which is not installed or finds no GPU.
    """
    if name != "flash":
        return
    advice = 'Use a machine with an NVIDIA GPU, or set cluster.backend = "auto".'
    if missing := [module for module in ("flash_kmeans", "triton") if find_spec(module) is None]:
        raise UserError(
            f"cluster.backend flash: {' and '.join(missing)} not installed. "
            f"Run `pip install flash-kmeans`. {advice}"
        )
    import torch  # noqa: PLC0415

    if not torch.cuda.is_available():
        raise UserError(f"cluster.backend flash: torch finds no GPU. {advice}")


def product_rows(k: int) -> int:
    """Return the number of rows of a product with `k` centroids."""
    return min(MAXIMUM_PRODUCT_ROWS, max(MAXIMUM_PRODUCT_COSINES // k, 32))


def nearest_cells(
    x: Float[np.ndarray, "n dim"],
    centroids: Float32[np.ndarray, "k dim"],
    workers: int = 1,
    backend: ClusterBackend = "auto",
) -> tuple[Int64[np.ndarray, " n"], Float32[np.ndarray, " n"]]:
    """Return the nearest centroid of each vector and its cosine.

    Centroids that are zero do not count. If all are, cosines are minus infinity.
    """
    cell, cosine = np.zeros(len(x), np.int64), np.full(len(x), -np.inf, np.float32)
    if not len(x) or not centroids.any():
        return cell, cosine
    find = load_backend(backend).search(
        Tree(Levels((len(centroids),)), {len(centroids): centroids}), 1
    )

    def place(part: slice) -> None:
        cell[part], cosine[part] = find(x[part])

    in_threads(place, pieces(len(x), product_rows(len(centroids))), workers)
    return cell, cosine


def run_iterations(
    x: Float16[np.ndarray, "n dim"],
    centroids: Float32[np.ndarray, "k dim"],
    step: Callable[
        [Float32[np.ndarray, "k dim"]],
        tuple[Int64[np.ndarray, " n"] | None, Float32[np.ndarray, "k dim"]],
    ],
    config: Cluster,
    first: int,
    save: SaveIteration | None,
) -> Float32[np.ndarray, "k dim"]:
    """Run a library's own iterations one at a time, as `Backend.train` describes.

    `step` returns the cells of the rows for some centroids and their means. Without cells, the
    library has mended the means itself.
    """
    for iteration in range(first, config.iterations):
        cells, means = step(centroids)
        if np.array_equal(means, centroids):
            break
        last = iteration + 1 == config.iterations
        centroids = means if last or cells is None else rebalance(x, cells, means, config)
        if save is not None:
            save(iteration + 1, centroids)
    return centroids
