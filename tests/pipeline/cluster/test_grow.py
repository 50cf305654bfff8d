import shutil
from itertools import pairwise

import numpy as np
import pytest

from data_catalog.format.layout import Levels
from pipeline.cluster import grow as growing
from pipeline.cluster.backends.backend import nearest_cells
from pipeline.cluster.grow import grow
from pipeline.cluster.kmeans import unit_rows
from pipeline.cluster.sample import draw_sample
from pipeline.config import Cluster

pytestmark = pytest.mark.usefixtures("each_backend")

DIMENSION = 8


def vectors(n: int) -> np.ndarray:
    """Around the eight axes, one group an axis."""
    random = np.random.Generator(np.random.Philox(key=2))
    return unit_rows(
        np.eye(DIMENSION)[np.arange(n) % DIMENSION] + 0.1 * random.normal(size=(n, DIMENSION))
    ).astype(np.float16)


def grown(x, granularities, scratch, seed=0, **cluster):
    return grow(
        draw_sample([x], len(x), 0, 0)[0],
        Levels(granularities),
        Cluster(iterations=10, **cluster),
        seed,
        scratch,
    )


def same(a, b) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[k], b[k]) for k in a)


def test_children_are_split_from_their_parents_points(tmp_path):
    x = vectors(300)
    found = grown(x, (4, 8), tmp_path)
    parents = nearest_cells(x, found.centroids[4])[0]
    assert sorted(map(tuple, found.sample.tolist())) == sorted(map(tuple, x.tolist()))
    for parent in range(4):
        inside = x[parents == parent]
        children = found.centroids[8][2 * parent : 2 * parent + 2]
        cell = nearest_cells(inside, children)[0]
        for child in range(2):
            assert (
                children[child] @ unit_rows(inside[cell == child].mean(axis=0, keepdims=True))[0]
                > 0.99
            )
    assert (
        2 - 2 * nearest_cells(x, found.centroids[8])[1]
    ).mean() < 0.25  # four cells share eight groups, eight do not
    assert (2 - 2 * nearest_cells(x, found.centroids[4])[1]).mean() > 0.25


@pytest.mark.parametrize("granularities", [(8,), (4, 16, 32), (2, 4, 8, 16)])
def test_levels_nest(tmp_path, granularities):
    found = grown(vectors(2000), granularities, tmp_path).centroids
    assert {k: level.shape for k, level in found.items()} == {
        k: (k, DIMENSION) for k in granularities
    }
    assert all(level.any(axis=1).all() for level in found.values())
    for above, k in pairwise(granularities):
        near = np.einsum("pd,pcd->pc", found[above], found[k].reshape(above, -1, DIMENSION))
        assert near.mean() > 0.6


def test_small_cells_keep_empty_children(tmp_path):
    """Two groups of copies and a lone point, three cells with four children each."""
    x = np.eye(3, DIMENSION, dtype=np.float16)[[0] * 20 + [1] * 20 + [2]]
    found = grown(x, (4, 16), tmp_path).centroids
    assert [int(found[k].any(axis=1).sum()) for k in (4, 16)] == [3, 3]


@pytest.mark.parametrize("points", [1024, 16])  # all vectors, or a subset, move the centroids
def test_the_result_depends_on_the_seed_and_not_on_threads(monkeypatch, tmp_path, points):
    monkeypatch.setattr("pipeline.cluster.grow.POINTS_PER_CENTROID", points)
    x = vectors(1500)
    first = grown(x, (4, 16, 32), tmp_path / "a").centroids
    assert same(first, grown(x, (4, 16, 32), tmp_path / "b", workers=1).centroids)
    assert same(first, grown(x, (4, 16, 32), tmp_path / "c", workers=3).centroids)
    assert not same(first, grown(x, (4, 16, 32), tmp_path / "d", seed=1).centroids)
    assert not same(first, grown(x, (4, 16, 32), tmp_path / "e", seed=-1).centroids)


def test_cells_are_grown_from_different_random_numbers(tmp_path):
    """Two cells with the same vectors but for a turn of the axes do not get the same starts."""
    random = np.random.Generator(np.random.Philox(key=2))
    half = unit_rows(np.eye(4)[0] + 0.3 * random.normal(size=(500, 4)))
    x = np.concatenate([np.pad(half, ((0, 0), (0, 4))), np.pad(half, ((0, 0), (4, 0)))]).astype(
        np.float16
    )
    leaves = grown(x, (2, 8), tmp_path).centroids[8]
    assert not np.array_equal(np.sort(leaves[:4].sum(axis=1)), np.sort(leaves[4:].sum(axis=1)))


@pytest.mark.parametrize("when", ["iteration.npz", "top.npz", "ends.npz", "sub-tree-00002.npz"])
def test_a_killed_training_resumes_to_the_same_bytes(monkeypatch, tmp_path, when):
    """Killed just after a file was written: what came later is not there."""
    x = vectors(2000)
    whole = grown(x, (4, 16), tmp_path / "whole", workers=1).centroids

    class Killed(BaseException):
        pass

    scratch, write = tmp_path / "killed", growing.write_arrays

    def dying(path, arrays):
        write(path, arrays)
        if path.name == when:
            raise Killed

    if when == "iteration.npz":
        monkeypatch.setattr("pipeline.cluster.checkpoint.write_arrays", dying)
    elif when == "ends.npz":
        monkeypatch.setattr(
            "pipeline.cluster.grow._split", lambda *_: (_ for _ in ()).throw(Killed)
        )
    monkeypatch.setattr("pipeline.cluster.grow.write_arrays", dying)
    with pytest.raises(Killed):
        grown(x, (4, 16), scratch, workers=1)
    assert (scratch / when).exists()
    monkeypatch.undo()
    kept = {path.name for path in scratch.iterdir()}
    splits = []
    split = growing._split
    monkeypatch.setattr(
        "pipeline.cluster.grow._split", lambda *given: splits.append(given[2]) or split(*given)
    )
    assert same(whole, grown(x, (4, 16), scratch, workers=2).centroids)
    assert len(splits) == 4 - sum(name.startswith("sub-tree") for name in kept)
    shutil.rmtree(scratch)
