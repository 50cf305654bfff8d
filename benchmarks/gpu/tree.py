"""The cluster tree in torch: seconds of its steps, and the quality of its search."""

from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import numpy as np

from benchmarks.gpu.rows import Part
from benchmarks.gpu.vectors import affordable, make_vectors
from data_catalog.format.layout import Levels
from pipeline.cluster.backends.backend import load_backend, nearest_cells
from pipeline.cluster.grow import grow
from pipeline.cluster.kmeans import unit_rows
from pipeline.cluster.measure import with_radius
from pipeline.cluster.polish import polish
from pipeline.cluster.sample import draw_sample
from pipeline.cluster.search import assign_leaves
from pipeline.cluster.stage import sample_size
from pipeline.config import Cluster
from pipeline.threads import cores


@dataclass(frozen=True)
class Tree:
    vectors: int
    modes: int
    granularities: tuple[int, ...]
    unseen: int


# From small to large, so that there is a result if the time does not suffice for the last one.
TREES = {
    "cpu": (Tree(12_000, 500, (8, 64), 600),),
    "gpu": (
        Tree(1_000_000, 30_000, (64, 4_096), 8_192),
        Tree(20_000_000, 600_000, (64, 4_096, 262_144), 8_192),
    ),
}


def run(part: Part) -> None:
    for tree in TREES[part.scale]:
        with TemporaryDirectory(dir=part.scratch) as folder:
            _measure(part, tree, Path(folder))


def _measure(part: Part, tree: Tree, folder: Path) -> None:
    """Record a row for each step of one tree as it ends."""
    config = Cluster(granularities=tree.granularities, backend="torch")
    levels, workers = Levels(config.granularities), config.workers
    count = affordable(tree.vectors, folder)
    title = f"{levels.leaves:,} leaves on {count:,}"
    note = f"torch on {load_backend('torch').device}, {cores()} threads"
    if count < tree.vectors:
        note += f"; {tree.vectors:,} vectors need more memory or disk"
    taken: list[float] = []

    @contextmanager
    def step(name: str, **values: Any) -> Any:
        begun = perf_counter()
        yield values
        taken.append(perf_counter() - begun)
        part.record(f"{title}: {name}", note, s=taken[-1], **values)

    x = make_vectors(count, tree.modes)
    size = min(len(x) - tree.unseen, sample_size(levels, config))
    sample, held_out = draw_sample([x], size, tree.unseen, 0)
    unseen = held_out.read()
    with step("grow", sample=size):
        grown = grow(sample, levels, config, 0, folder)
    with step("polish"):
        polished = polish(grown.sample, unseen, grown.centroids, levels, config, folder)
    with step("radii"):
        made, _, _ = with_radius(polished, grown.sample, 0.99, workers, "torch")
    with step("assign all") as values:
        _, distances = assign_leaves(x, made, config.beam, workers, "torch")
        values["inertia"] = float(distances.mean(dtype=np.float64))
    found, _ = assign_leaves(unseen, made, config.beam, workers, "torch")
    exact, _ = nearest_cells(unit_rows(unseen), made.centroids[levels.leaves], workers, "torch")
    part.record(
        f"{title}: all steps",
        f"{note}; share of unseen vectors for which beam {config.beam} finds the nearest leaf",
        s=sum(taken),
        vectors_per_s=len(x) / sum(taken),
        share_of_nearest_leaves_found=float((found == exact).mean()),
    )
