"""Flat k-means by backend: the time of an iteration, and the vectors assigned per second."""

from dataclasses import dataclass
from importlib.util import find_spec
from time import perf_counter

import numpy as np

from benchmarks.gpu.rows import Part
from benchmarks.gpu.vectors import make_vectors
from data_catalog.errors import UserError, first_line
from pipeline.cluster.backends.backend import check_backend, load_backend, nearest_cells
from pipeline.cluster.kmeans import squared_distance, unit_rows
from pipeline.config import Cluster, ClusterBackend

BACKENDS: tuple[ClusterBackend, ...] = ("torch", "flash", "faiss")
GROWTH = 3  # factor of the time for the next number of cells, most of which does not grow with it


@dataclass(frozen=True)
class Sizes:
    vectors: int
    modes: int
    cells: tuple[int, ...]
    iterations: int
    unseen: int
    assigned: int


SIZES = {
    "cpu": Sizes(20_000, 500, (16, 64, 1_024), 2, 1_000, 5_000),
    "gpu": Sizes(4_000_000, 100_000, (64, 4_096, 65_536), 2, 8_192, 1_000_000),
}


def run(part: Part) -> None:
    sizes = SIZES[part.scale]
    x = make_vectors(sizes.vectors + sizes.unseen, sizes.modes)
    x, unseen = x[sizes.unseen :], x[: sizes.unseen]
    random = np.random.Generator(np.random.Philox(key=1))
    # Rows at random: k-means++ runs on the processor, and would take longer than the iterations.
    starts = {
        k: unit_rows(x[np.sort(random.choice(len(x), k, replace=False))]) for k in sizes.cells
    }
    usable = [backend for backend in BACKENDS if _is_usable(part, backend)]
    for backend in usable:  # the first call loads libraries and kernels
        load_backend(backend).train(x[:4_096], starts[sizes.cells[0]], Cluster(iterations=1), 0)
        nearest_cells(unseen, starts[sizes.cells[0]], 0, backend)
    took: dict[str, float] = {}
    for k in sizes.cells:
        for backend in usable:
            name = f"k = {k:,}, {backend} on {load_backend(backend).device}"
            if took.get(backend, 0) * GROWTH > part.seconds_left():
                part.record(name, f"not measured: {part.seconds_left():.0f} s are left")
                continue
            try:
                took[backend] = _measure(part, name, backend, x, unseen, starts[k], sizes)
            except Exception as error:  # the other libraries are measured all the same
                part.record(name, f"FAILED: {type(error).__name__}: {first_line(error)}")


def _is_usable(part: Part, backend: ClusterBackend) -> bool:
    """Return whether a backend can be measured. The reason is recorded if it cannot."""
    if backend == "faiss":
        if find_spec("faiss") is None:
            part.record(backend, "not measured: FAISS is not installed")
            return False
        if part.scale == "gpu" and load_backend(backend).device == "cpu":
            part.record(backend, "not measured: the installed FAISS has no GPU")
            return False
    try:
        check_backend(backend)
    except UserError as error:
        part.record(backend, f"not measured: {error}")
        return False
    return True


def _measure(
    part: Part,
    name: str,
    backend: ClusterBackend,
    x: np.ndarray,
    unseen: np.ndarray,
    start: np.ndarray,
    sizes: Sizes,
) -> float:
    """Record the row of a backend and a number of cells. Return the seconds that it took."""
    config = Cluster(iterations=sizes.iterations, backend=backend)
    begun = perf_counter()
    centroids = load_backend(backend).train(x, start, config, config.workers)
    trained = perf_counter()
    some = x[: sizes.assigned]
    nearest_cells(some, centroids, config.workers, backend)
    assigned = perf_counter()
    distances = squared_distance(nearest_cells(unseen, centroids, config.workers, backend)[1])
    part.record(
        name,
        f"{len(x):,} x {x.shape[1]} vectors, {sizes.iterations} iterations from random rows with "
        f"copying; {len(some):,} vectors assigned; inertia of {len(unseen):,} unseen ones",
        s_per_iteration=(trained - begun) / sizes.iterations,
        assigned_per_s=len(some) / (assigned - trained),
        inertia=float(distances.mean(dtype=np.float64)),
    )
    return assigned - begun
