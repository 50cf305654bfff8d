"""Train the cluster tree on the embeddings of all parts, and find each document's leaf."""

import json
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float16, Float32, Int64, UInt64

from data_catalog.errors import UserError
from data_catalog.layout import Levels
from data_catalog.manifest import fingerprint, write_json
from data_catalog.records import Account, total
from pipeline.config import Build, Cluster
from pipeline.embed import read_embeddings, read_identity
from pipeline.kmeans import nearest, spherical_kmeans, unit
from pipeline.parts import Part, make_part
from pipeline.tree import CENTROIDS, Recall, Tree, assign, load_tree, recall

__all__ = ["Recall", "Tree", "assign", "assign_part", "load_tree", "recall", "train_tree"]

log = logging.getLogger(__name__)

VERSION = 1
DESCRIPTION = "tree.json"
LEAVES = "leaves.parquet"
SAMPLING, CELLS = 1, 2  # what randomness is for: second word of a generator's key


def train_tree(embedded: Sequence[Part], folder: Path, config: Build) -> Part:
    """Write `centroids.npz` (one array a level, named by its granularity; see `pipeline.tree.Tree`) and `tree.json`.

    `tree.json` holds the granularities built and requested, warnings, the number of vectors sampled, the encoder, and by level
    the inertia: the sample's mean squared distance `2 - 2 cos` to its cells.

    Raises:
        UserError: there are too few documents even for the first level, or for a later one and `cluster.unsupported` is "refuse";
            or the parts come from different encoders.
    """
    settings = config.cluster.model_dump(mode="json", exclude={"beam"})
    key = fingerprint("tree", VERSION, settings, config.seed, [part.fingerprint for part in embedded])
    return make_part(folder, key, lambda out: _train(embedded, out, config))


def assign_part(embedded: Part, tree: Part, folder: Path, config: Build) -> Part:
    """Write `leaves.parquet`: leaf uint32, distance float32 (squared, `2 - 2 cos`), rows as in the part's embeddings.

    Raises:
        UserError: the tree was trained on another encoder's vectors.
    """

    def make(out: Path) -> Account:
        made_by = json.loads((tree.folder / DESCRIPTION).read_text(encoding="utf-8"))["encoder"]
        if made_by != read_identity(embedded).comparable:
            raise UserError(f"{embedded.folder} was not embedded by the encoder of {tree.folder}, {made_by}; embed it with that one")
        [x] = read_embeddings([embedded])
        leaf, distance = assign(x, load_tree(tree.folder), config.cluster.beam)
        pq.write_table(pa.table({"leaf": leaf, "distance": distance}), out / LEAVES, compression="zstd")
        return Account(read=embedded.account.kept, kept=embedded.account.kept)

    return make_part(folder, fingerprint("assign", VERSION, embedded.fingerprint, tree.fingerprint, config.cluster.beam), make)


def _train(embedded: Sequence[Part], out: Path, config: Build) -> Account:
    maps = read_embeddings(embedded)
    documents = sum(len(x) for x in maps)
    sampled = min(documents, config.cluster.sample)
    levels, warnings = _supported(documents, sampled, config.cluster)
    for warning in warnings:
        log.warning(warning)
    x = _sample(maps, sampled, config.seed)
    log.info("tree %s: training on %d of %d vectors", list(levels.granularities), sampled, documents)
    centroids, inertia = grow(x, levels, config.cluster.iterations, config.seed)
    Tree(levels, centroids)  # checks itself
    np.savez(out / CENTROIDS, allow_pickle=False, **{str(k): array for k, array in centroids.items()})
    description = {
        "granularities": levels.granularities,
        "requested": config.cluster.granularities,
        "warnings": warnings,
        "documents": documents,
        "sample": sampled,
        "inertia": {str(k): value for k, value in inertia.items()},
        "encoder": read_identity(embedded[0]).comparable,
    }
    write_json(out / DESCRIPTION, description)
    kept = total(part.account for part in embedded).kept
    return Account(read=kept, kept=kept)


def grow(
    x: Float32[np.ndarray, "n dim"], levels: Levels, iterations: int, seed: int
) -> tuple[dict[int, Float32[np.ndarray, "cells dim"]], dict[int, float]]:
    """Centroids and inertia (mean of `2 - 2 cos` to the points' own cells) of each level, each cell split by k-means on its points.

    A cell with fewer different points than it should have children keeps empty ones, with centroids of zeros.
    """
    centroids: dict[int, Float32[np.ndarray, "cells dim"]] = {}
    inertia: dict[int, float] = {}
    cells: Int64[np.ndarray, " n"] = np.zeros(len(x), np.int64)
    above = 1
    for k in levels.granularities:
        b = k // above
        level = np.zeros((k, x.shape[1]), np.float32)
        distances = np.zeros(len(x), np.float32)
        order = np.argsort(cells, kind="stable")
        parents, starts = np.unique(cells[order], return_index=True)
        for parent, points in zip(parents.tolist(), np.split(order, starts[1:]), strict=True):
            children = spherical_kmeans(x[points], b, iterations, _cell_seed(seed, k, parent))
            level[parent * b : (parent + 1) * b] = children
            chosen, distances[points] = nearest(x[points], children)
            cells[points] = parent * b + chosen
        centroids[k], inertia[k] = level, float(distances.mean(dtype=np.float64))
        above = k
    return centroids, inertia


def _cell_seed(seed: int, k: int, parent: int) -> int:
    generator = np.random.Generator(np.random.Philox(key=_key(seed, CELLS), counter=[0, 0, parent, k]))
    return int(generator.integers(2**31))


def _key(seed: int, purpose: int) -> UInt64[np.ndarray, " 2"]:
    return np.array([seed % 2**64, purpose], np.uint64)


def _supported(documents: int, sampled: int, config: Cluster) -> tuple[Levels, list[str]]:
    """The levels that have `min_points` documents a cell, and sentences on those that have not.

    Raises:
        UserError: not even the first level has them; or a later one has not and `unsupported` is "refuse".
    """
    requested, least = config.granularities, config.min_points
    built = tuple(k for k in requested if documents >= k * least)
    advice = f"{documents} documents support at most {documents // max(least, 1)} cells of {least} documents (cluster.min_points)"
    if not built:
        raise UserError(f"cluster.granularities {list(requested)}: {advice}; take more documents, coarser levels or a smaller min_points")
    warnings = []
    if built != requested:
        left_out = list(requested[len(built) :])
        if config.unsupported == "refuse":
            raise UserError(f'cluster.granularities {list(requested)}: {advice}; leave out {left_out}, or set cluster.unsupported = "cap"')
        warnings.append(f"{advice}: the tree ends at {built[-1]}, without {left_out}")
    if sampled < built[-1] * least:
        warnings.append(
            f"{sampled} vectors (cluster.sample) train {built[-1]} cells: fewer than {least} each; a larger sample places them better"
        )
    return Levels(built), warnings


def _sample(maps: Sequence[Float16[np.ndarray, "documents dim"]], size: int, seed: int) -> Float32[np.ndarray, "n dim"]:
    """`size` unit vectors, without repetition, from every part in proportion to its rows."""
    ends = np.cumsum([len(x) for x in maps])
    quotas = np.diff(ends * size // ends[-1], prepend=0)  # rounded so that they sum to `size`
    sample = np.empty((size, maps[0].shape[1]), np.float32)
    first = 0
    for i, (x, quota) in enumerate(zip(maps, quotas.tolist(), strict=True)):
        generator = np.random.Generator(np.random.Philox(key=_key(seed, SAMPLING), counter=[0, 0, 0, i]))
        rows = np.sort(generator.choice(len(x), quota, replace=False)) if quota < len(x) else slice(None)
        sample[first : first + quota] = unit(x[rows])
        first += quota
    return sample
