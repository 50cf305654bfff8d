"""Measure a tree of 262,144 leaves for 10 million vectors.

The results are the seconds per step, and the peak memory beside the memory formula of
`pipeline.cluster.grow`. The vectors are synthetic: a mixture of modes on the unit sphere with
random noise around each mode, written in chunks as float16. Memory is read from /proc/self/status
ten times per second. Anonymous pages belong to the process, while the system can reclaim
file-backed pages.
"""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event, Thread
from time import perf_counter

import numpy as np

from benchmarks.hardware import headline, today
from data_catalog.format.layout import Levels
from pipeline.cluster.grow import POINTS_PER_CENTROID, grow
from pipeline.cluster.kmeans import unit_rows
from pipeline.cluster.measure import measure_tree, with_radius
from pipeline.cluster.polish import polish
from pipeline.cluster.sample import draw_sample
from pipeline.cluster.search import MAXIMUM_SEARCH_ROWS, assign_leaves
from pipeline.cluster.stage import _MARGIN_DOCUMENTS, _MEASURE_DOCUMENTS, sample_size
from pipeline.config import Cluster
from pipeline.threads import cores, in_threads

DIM, CHUNK = 384, 65_536
SPREAD = 0.8  # norm of the noise added to a mode, which has unit norm


def philox(purpose: int, number: int) -> np.random.Generator:
    """Return the random generator of a purpose and a chunk."""
    return np.random.Generator(np.random.Philox(key=[7, purpose], counter=[0, 0, 0, number]))


def make(path: Path, vectors: int, modes: int, workers: int) -> np.ndarray:
    """Write synthetic vectors to `path` and return them as a memory-mapped array.

    Modes lie around 300 themes, so that the data has a hierarchy. The direction of a mode is the
    direction of its theme plus two directions from a shared list.
    """
    themes = unit_rows(philox(0, 0).standard_normal((300, DIM), np.float32))
    some = int(modes**0.5) + 1
    one, other = (unit_rows(philox(0, i).standard_normal((some, DIM), np.float32)) for i in (1, 2))
    x = np.lib.format.open_memmap(path, mode="w+", dtype=np.float16, shape=(vectors, DIM))

    def fill(first: int) -> None:
        random = philox(1, first)
        size = min(CHUNK, vectors - first)
        mode = random.integers(modes, size=size)
        centre = unit_rows(
            themes[mode % len(themes)] + unit_rows(one[mode % some] + other[mode // some])
        )
        noise = unit_rows(random.standard_normal((size, DIM), np.float32)) * np.float32(SPREAD)
        x[first : first + size] = unit_rows(centre + noise)

    in_threads(fill, range(0, vectors, CHUNK), workers)
    x.flush()
    del x
    return np.load(path, mmap_mode="r", allow_pickle=False)


@contextmanager
def watched(name: str, rows: list[str]) -> Iterator[None]:
    """Append a table row with the seconds and the peaks of anonymous and file-backed memory."""
    peak = {"RssAnon": 0.0, "RssFile": 0.0}
    done = Event()

    def watch() -> None:
        while not done.wait(0.1):
            for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
                if (key := line.split(":")[0]) in peak:
                    peak[key] = max(peak[key], int(line.split()[1]) / 2**20)

    watcher = Thread(target=watch)
    watcher.start()
    started = perf_counter()
    try:
        yield
    finally:
        seconds = perf_counter() - started
        done.set()
        watcher.join()
    rows.append(f"| {name} | {seconds:.1f} | {peak['RssAnon']:.2f} | {peak['RssFile']:.2f} |")
    print(rows[-1], flush=True)


def formula(sample: int, levels: Levels, workers: int) -> dict[str, float]:
    """Return the expected memory per step in GB, from the formula of `pipeline.cluster.grow`.

    Memory that the process holds before the first step is not included.
    """
    first, leaves = levels.granularities[0], levels.leaves
    return {
        "first level": min(sample, POINTS_PER_CENTROID * first) * DIM * 4 / 2**30,
        "sub-trees": (leaves * DIM * 4 + workers * POINTS_PER_CENTROID * 64 * DIM * 6) / 2**30,
        "polishing": (
            leaves * DIM * 14
            + sample * 28
            + workers * MAXIMUM_SEARCH_ROWS * (DIM * 6 + 10 * 64 * 4)
        )
        / 2**30,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vectors", type=int, default=10_000_000)
    parser.add_argument("--modes", type=int, default=300_000)
    parser.add_argument("--granularities", type=int, nargs="+", default=[64, 4_096, 262_144])
    parser.add_argument("--threads", type=int, default=cores())
    parser.add_argument(
        "--folder",
        type=Path,
        default=Path("benchmarks/cache"),
        help="folder for temporary files; needs four bytes per vector component",
    )
    arguments = parser.parse_args()
    config = Cluster(granularities=tuple(arguments.granularities), workers=arguments.threads)
    levels = Levels(config.granularities)
    rows: list[str] = []
    arguments.folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=arguments.folder) as folder:
        scratch = Path(folder)
        x = make(scratch / "vectors.npy", arguments.vectors, arguments.modes, arguments.threads)
        with watched("before", rows):
            sample, unseen = draw_sample(
                [x],
                min(len(x) - _MARGIN_DOCUMENTS - _MEASURE_DOCUMENTS, sample_size(levels, config)),
                _MARGIN_DOCUMENTS + _MEASURE_DOCUMENTS,
                0,
            )
            held_out = unseen.read()
        started = perf_counter()
        with watched("grow", rows):
            grown = grow(sample, levels, config, 0, scratch / "unfinished")
        with watched("polish", rows):
            tree = polish(
                grown.sample,
                held_out[:_MARGIN_DOCUMENTS],
                grown.centroids,
                levels,
                config,
                scratch / "unfinished",
            )
        with watched("radii", rows):
            tree, counts, _ = with_radius(tree, grown.sample, 0.99, config.workers)
        with watched("assign all", rows):
            _, distances = assign_leaves(x, tree, config.beam, config.workers)
        minutes = (perf_counter() - started) / 60
        with watched("measure", rows):
            measures = measure_tree(tree, counts, held_out[_MARGIN_DOCUMENTS:])
    expected = ", ".join(
        f"{name} {size:.2f}" for name, size in formula(len(sample), levels, config.workers).items()
    )
    quality = []
    for k, level in measures.items():
        sizes, search = level["sizes"], level["search"][str(config.beam)]
        quality.append(
            f"| {k} | {sizes['smallest']} / {sizes['median']:.0f} / {sizes['largest']} "
            f"| {level['empty']} | {level['inertia']:.4f} | {search['found']:.4f} "
            f"| {search['excess']:+.2%} |"
        )
    text = "\n".join(
        [
            f"# A tree of {levels.leaves:,} leaves for {len(x):,} vectors\n",
            f"{headline()}\n",
            f"{len(x):,} x {DIM} synthetic vectors, {arguments.modes:,} modes, "
            f"{config.iterations} iterations, {arguments.threads} threads. "
            f"Trained and assigned in **{minutes:.1f} minutes**. Inertia of all vectors: "
            f"{distances.mean(dtype=np.float64):.4f}.\n",
            "| step | seconds | peak anonymous memory, GB | peak file-backed memory, GB |\n"
            "|---|---|---|---|",
            *rows,
            f"\nMemory by the formula in GB, in addition to that of `before`: {expected}.\n",
            "| level | vectors per cell: minimum / median / maximum | empty | inertia, unseen "
            "| recall@1 | inertia above exact |",
            "|---|---|---|---|---|---|",
            *quality,
        ]
    )
    print(text)
    Path(f"benchmarks/results/{today()}-tree-scale-{len(x) // 1000}k.md").write_text(
        text + "\n", encoding="utf-8"
    )


if __name__ == "__main__":
    main()
