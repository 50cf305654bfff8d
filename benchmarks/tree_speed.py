"""Compare the cluster tree with flat `faiss.Kmeans` on real vectors.

The comparison covers training and assignment seconds, inertia and the recall of the search. Flat
k-means trains on all points, without subsampling. Both sides get the same vectors, iterations and
threads. They run in turns in one process, so that other work on the machine slows both alike.

The tree's training time covers everything from the vectors in memory to the polished tree with
its margins and radii. The tree's inertia is measured after the beam search. Each side assigns all
vectors to its own centroids.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import faiss
import numpy as np

from benchmarks.hardware import headline, today
from benchmarks.windows import read
from data_catalog.format.layout import Levels
from pipeline.cluster.grow import grow
from pipeline.cluster.kmeans import unit_rows
from pipeline.cluster.measure import with_radius
from pipeline.cluster.polish import polish
from pipeline.cluster.products import fast_dtype
from pipeline.cluster.sample import draw_sample
from pipeline.cluster.search import assign_leaves, recall
from pipeline.cluster.tree import Tree
from pipeline.config import Cluster
from pipeline.threads import cores

HELD_OUT = 20_480  # vectors, two fifths of which set the margins


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Return the seconds that `work` took, and its result."""
    started = perf_counter()
    result = work()
    return perf_counter() - started, result


def flat(x: np.ndarray, k: int, iterations: int, seed: int) -> np.ndarray:
    """Return the `(k, dim)` centroids of flat spherical k-means."""
    trainer = faiss.Kmeans(
        x.shape[1],
        k,
        niter=iterations,
        seed=seed,
        spherical=True,
        min_points_per_centroid=1,
        max_points_per_centroid=2**31 - 1,
    )
    trainer.train(x)
    return trainer.centroids


def flat_assign(x: np.ndarray, centroids: np.ndarray) -> float:
    """Return the mean squared distance to the nearest centroid."""
    index = faiss.IndexFlatIP(x.shape[1])
    index.add(centroids)
    return float((2 - 2 * index.search(x, 1)[0]).mean(dtype=np.float64))


def tree(x: np.ndarray, unseen: np.ndarray, levels: Levels, config: Cluster, seed: int) -> Tree:
    """Return a trained and polished tree with radii."""
    with TemporaryDirectory(dir=".") as scratch:
        sample, _ = draw_sample([x], len(x), 0, seed)
        grown = grow(sample, levels, config, seed, Path(scratch))
        polished = polish(grown.sample, unseen, grown.centroids, levels, config, Path(scratch))
        return with_radius(polished, grown.sample, 0.99, config.workers)[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vectors", type=int, default=500_000)
    parser.add_argument("--granularities", type=int, nargs="+", default=[64, 4096])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--flat-rounds",
        type=int,
        default=1,
        help="rounds in which flat k-means is trained, which takes minutes "
        "(its assignment runs in every round)",
    )
    parser.add_argument("--threads", type=int, default=cores())
    arguments = parser.parse_args()
    faiss.omp_set_num_threads(arguments.threads)
    config = Cluster(granularities=tuple(arguments.granularities), workers=arguments.threads)
    levels = Levels(config.granularities)
    x = read()
    x = x[
        np.random.Generator(np.random.Philox(key=1)).permutation(len(x))[
            : arguments.vectors + HELD_OUT
        ]
    ]
    x, held_out = np.ascontiguousarray(x[HELD_OUT:]), x[:HELD_OUT]
    teach, test = held_out[: HELD_OUT * 2 // 5], held_out[HELD_OUT * 2 // 5 :]
    floats = unit_rows(x)

    seconds: dict[str, list[float]] = {
        name: [] for name in ("flat train", "tree train", "flat assign", "tree assign")
    }
    inertia: dict[str, list[float]] = {"flat": [], "tree": []}
    recalls: list[float] = []
    rows: dict[int, list[tuple[float, float, float]]] = {}
    for number in range(arguments.rounds):
        if number < arguments.flat_rounds:
            took, centroids = timed(
                lambda number=number: flat(floats, levels.leaves, config.iterations, number)
            )
            seconds["flat train"].append(took)
        took, grown_tree = timed(lambda number=number: tree(x, teach, levels, config, number))
        seconds["tree train"].append(took)
        took, value = timed(lambda centroids=centroids: flat_assign(floats, centroids))
        seconds["flat assign"].append(took)
        inertia["flat"].append(value)
        for beam in (1, 2, 4, 8, 16):
            took, (_, away) = timed(
                lambda beam=beam, grown_tree=grown_tree: assign_leaves(
                    x, grown_tree, beam, arguments.threads
                )
            )
            rows.setdefault(beam, []).append(
                (took, float(away.mean(dtype=np.float64)), recall(test, grown_tree, beam).found)
            )
        took, value, share = rows[config.beam][-1]
        seconds["tree assign"].append(took)
        inertia["tree"].append(value)
        recalls.append(share)
        print(
            {name: [round(s, 2) for s in values] for name, values in seconds.items()},
            inertia,
            recalls,
            flush=True,
        )

    medians = {name: median(values) for name, values in seconds.items()}
    loss = median(inertia["tree"]) / median(inertia["flat"]) - 1
    lines = [
        f"# The cluster tree {list(levels.granularities)} against flat faiss.Kmeans",
        f"{headline()}",
        f"{len(x):,} windows of the shared corpus x {x.shape[1]}, {config.iterations} iterations, "
        f"{arguments.threads} threads, products in {str(fast_dtype()).removeprefix('torch.')}. "
        "Medians, with all rounds in brackets.",
        "| | flat | tree | ratio |\n|---|---|---|---|",
        *(
            f"| {job}, seconds "
            f"| {medians[f'flat {job}']:.2f} ({_all(seconds[f'flat {job}'])}) "
            f"| {medians[f'tree {job}']:.2f} ({_all(seconds[f'tree {job}'])}) "
            f"| **{medians[f'flat {job}'] / medians[f'tree {job}']:.1f}x** |"
            for job in ("train", "assign")
        ),
        f"| inertia | {median(inertia['flat']):.4f} | {median(inertia['tree']):.4f} "
        f"| {loss:+.2%} |",
        f"| recall@1 of {len(test):,} unseen vectors, beam {config.beam} | 1 "
        f"| {median(recalls):.4f} | |",
        "\nThe beam is the maximum number of parents per vector. With the tree's margins, most "
        "vectors follow fewer:\n",
        "| beam | assign, seconds | against flat | inertia against flat | recall@1 |\n"
        "|---|---|---|---|---|",
        *(
            _beam_row(beam, values, medians["flat assign"], median(inertia["flat"]))
            for beam, values in rows.items()
        ),
    ]
    text = (
        "\n".join(lines[:1])
        + "\n\n"
        + "\n\n".join(lines[1:3])
        + "\n\n"
        + "\n".join(lines[3:])
        + "\n"
    )
    print(text)
    name = f"{today()}-tree-speed-{len(x) // 1000}k"
    Path(f"benchmarks/results/{name}.md").write_text(text, encoding="utf-8")


def _all(values: list[float]) -> str:
    return ", ".join(f"{value:.2f}" for value in values)


def _beam_row(
    beam: int, values: list[tuple[float, float, float]], flat_seconds: float, flat_inertia: float
) -> str:
    took, value, share = (median(column) for column in zip(*values, strict=True))
    return (
        f"| {beam} | {took:.2f} | {flat_seconds / took:.1f}x | {value / flat_inertia - 1:+.2%} "
        f"| {share:.4f} |"
    )


if __name__ == "__main__":
    main()
