"""Compare the libraries that can train and search the cluster tree (`cluster.backend`).

Each library trains flat k-means from the same initial centroids, then the tree, and assigns all
vectors: to the centroids of flat k-means, and to the leaves of the tree. The yardstick of
assignment is one search of a `faiss.IndexFlatIP` that holds all leaves. The libraries run in turns
in one process. Time is that of the processor, which other work on the machine hardly changes, and
on a GPU that of the clock. `cluster.backend = "auto"` is a
rule that follows these results.

The vectors are synthetic: modes around themes on the unit sphere (see `benchmarks/tree_scale.py`).
"""

import argparse
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter, process_time
from typing import Any

import faiss
import numpy as np

from benchmarks.hardware import headline, today
from benchmarks.tree_scale import make
from benchmarks.tree_speed import tree
from data_catalog.format.layout import Levels
from pipeline.cluster.backends.backend import check_backend, load_backend, nearest_cells
from pipeline.cluster.backends.with_faiss import faiss_threads, flat_index
from pipeline.cluster.kmeans import nearest_centroid, unit_rows
from pipeline.cluster.kmeans_plus_plus import choose_centroids
from pipeline.cluster.products import fast_dtype
from pipeline.cluster.search import assign_leaves
from pipeline.cluster.tree import Tree
from pipeline.config import Cluster
from pipeline.threads import one_thread

UNSEEN = 8_192  # vectors that set the margins of the search
TRAININGS = {64: 10, 512: 4, 4096: 1}  # iterations by number of cells
LEVELS = Levels((64, 4096))


class Stopwatch:
    """Seconds by library and job, of every round."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.seconds: dict[tuple[str, str], list[float]] = defaultdict(list)

    def __call__(self, library: str, job: str, work: Callable[[], Any]) -> Any:
        started = self.clock()
        result = work()
        self.seconds[library, job].append(self.clock() - started)
        print(library, job, f"{self.seconds[library, job][-1]:.2f}", flush=True)
        return result

    def median(self, library: str, job: str) -> float:
        return median(self.seconds[library, job])


def inertia(x: np.ndarray, centroids: np.ndarray) -> float:
    """Return the mean squared distance to the nearest centroid."""
    return float(nearest_centroid(x, centroids)[1].mean(dtype=np.float64))


def parents(x: np.ndarray, tree: Tree, beam: int) -> float:
    """Return the mean number of cells of the first level that the search of a vector follows."""
    assert tree.margins is not None
    cosines = unit_rows(x) @ tree.centroids[tree.levels.granularities[0]].T
    near = cosines >= cosines.max(axis=1, keepdims=True) - tree.margins[0]
    return float(near.sum(axis=1).clip(max=beam).mean())


def one_round(
    watch: Stopwatch,
    quality: dict[tuple[str, str], float],
    libraries: list[str],
    x: np.ndarray,
    unseen: np.ndarray,
    starts: dict[int, np.ndarray],
    threads: int,
) -> None:
    """Time every job of every library once."""
    for k, iterations in TRAININGS.items():
        config = Cluster(iterations=iterations, workers=threads)
        for library in libraries:
            train = load_backend(library).train
            centroids = watch(
                library,
                f"train {k}",
                lambda train=train, k=k, config=config: train(x, starts[k], config, threads),
            )
            if (library, f"train {k}") not in quality:
                quality[library, f"train {k}"] = inertia(unseen, centroids)
            watch(
                library,
                f"assign {k}",
                lambda centroids=centroids, library=library: nearest_cells(
                    x, centroids, threads, library
                ),
            )
    floats, grown = unit_rows(x), {}
    for library in libraries:
        config = Cluster(granularities=LEVELS.granularities, workers=threads, backend=library)
        grown[library] = watch(
            library, "train tree", lambda config=config: tree(x, unseen, LEVELS, config, 0)
        )
    with faiss_threads(threads):
        index = flat_index(x.shape[1])
        index.add(grown[libraries[0]].centroids[LEVELS.leaves])
        watch("flat", "assign tree", lambda: index.search(floats, 1))
    for library in libraries:
        _, distances = watch(
            library,
            "assign tree",
            lambda library=library: assign_leaves(x, grown[library], 8, threads, library),
        )
        quality[library, "train tree"] = float(distances.mean(dtype=np.float64))
        quality[library, "parents"] = parents(unseen, grown[library], 8)


def table_rows(
    watch: Stopwatch, quality: dict[tuple[str, str], float], libraries: list[str], vectors: int
) -> list[str]:
    """Return the table's rows: one per number of cells and library."""
    lines = []
    flat = watch.median("flat", "assign tree")
    for cells in (*map(str, TRAININGS), "tree"):
        job = f"train {cells}"
        best = min(watch.median(library, job) for library in libraries)
        for library in libraries:
            train, assign = (
                watch.median(library, job),
                watch.median(library, f"assign {cells}"),
            )
            lines.append(
                f"| {cells} | {library} | {train:.2f} ({_all(watch.seconds[library, job])}) "
                f"| {train / best:.2f} | {quality[library, job]:.4f} | {vectors / assign:,.0f} "
                f"| {f'{flat / assign:.1f}x' if cells == 'tree' else ''} |"
            )
    return lines


def _all(values: list[float]) -> str:
    return ", ".join(f"{value:.2f}" for value in values)


@one_thread()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vectors", type=int, default=40_000)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--libraries", nargs="+", default=["torch", "faiss"])
    arguments = parser.parse_args()
    for library in arguments.libraries:
        check_backend(library)
    with TemporaryDirectory(dir=".") as folder:
        vectors = make(
            Path(folder) / "vectors.npy", arguments.vectors + UNSEEN, 6_000, arguments.threads
        )
        x, unseen = np.array(vectors[UNSEEN:]), np.array(vectors[:UNSEEN])
    random = np.random.Generator(np.random.Philox(key=1))
    starts = {k: choose_centroids(x, k, random) for k in TRAININGS}
    on_gpu = any(load_backend(library).device == "cuda" for library in arguments.libraries)
    watch, quality = Stopwatch(perf_counter if on_gpu else process_time), {}
    for _ in range(arguments.rounds):
        one_round(watch, quality, arguments.libraries, x, unseen, starts, arguments.threads)
    devices = ", ".join(f"{name} on {load_backend(name).device}" for name in arguments.libraries)
    text = "\n".join(
        [
            "# Libraries of the cluster tree\n",
            f"{headline()}\n",
            f"{len(x):,} x {x.shape[1]} synthetic vectors, threads: {arguments.threads}. "
            f"{devices}. torch computes in {str(fast_dtype()).removeprefix('torch.')}, FAISS "
            f"{faiss.__version__} in float32. Flat k-means runs "
            f"{', '.join(f'{i} iterations at {k} cells' for k, i in TRAININGS.items())}, the tree "
            f"{list(LEVELS.granularities)} 20 per split. Seconds of "
            f"{'the clock' if on_gpu else 'the processor'} are medians, with all rounds in "
            "brackets. Inertia is that of unseen vectors, and for the tree that of its search, "
            "beam 8.\n",
            "| cells | library | train, seconds | against the fastest | inertia "
            "| vectors assigned per second | against flat search |\n|---|---|---|---|---|---|---|",
            *table_rows(watch, quality, arguments.libraries, len(x)),
            f"\nFlat search of {LEVELS.leaves:,} leaves: "
            f"{len(x) / watch.median('flat', 'assign tree'):,.0f} vectors per second "
            f"({_all(watch.seconds['flat', 'assign tree'])} seconds). "
            f"The tree's search follows {quality[arguments.libraries[0], 'parents']:.1f} cells "
            "of the first level per vector, on average.",
        ]
    )
    print(text)
    Path(f"benchmarks/results/{today()}-tree-backends.md").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
