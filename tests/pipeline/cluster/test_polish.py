import numpy as np
import pytest

from data_catalog.format.layout import Levels
from pipeline.cluster.kmeans import unit_rows
from pipeline.cluster.polish import cell_means, polish
from pipeline.cluster.search import assign_leaves, with_margins
from pipeline.cluster.tree import Tree
from pipeline.config import Cluster

pytestmark = pytest.mark.usefixtures("each_backend")


@pytest.fixture
def x() -> np.ndarray:
    return unit_rows(np.random.Generator(np.random.Philox(key=1)).normal(size=(3000, 6))).astype(
        np.float16
    )


def test_centroids_are_the_mean_directions_of_their_leaves():
    x = np.array([[1, 0, 0], [0.5, 0.75, 0], [0, 0, 1], [0, 1, 0]], np.float16)
    found = cell_means(x, np.array([0, 0, 3, 1], np.uint32), Levels((2, 4)), Cluster(), last=True)
    sums = [x[:2].sum(axis=0), x[3], [0, 0, 0], x[2]]
    assert found[4] == pytest.approx(unit_rows(np.array(sums)), abs=1e-6)
    assert found[2] == pytest.approx(
        unit_rows(np.array([x[[0, 1, 3]].sum(axis=0), x[2]])), abs=1e-6
    )
    assert found[4][2].tolist() == [0, 0, 0]


@pytest.mark.parametrize("workers", [2, 3])
def test_threads_do_not_change_the_result(x, workers):
    leaves = (np.arange(3000) % 16).astype(np.uint32)
    one, more = (
        cell_means(x, leaves, Levels((4, 16)), Cluster(workers=w), last=False) for w in (1, workers)
    )
    assert all(one[k].tobytes() == more[k].tobytes() for k in (4, 16))


def test_small_leaves_are_merged_away_in_the_last_pass_only(x):
    leaves = np.repeat([0, 1, 2, 3], [20, 1, 10, 10]).astype(np.uint32)
    config = Cluster(least_share=0.2)
    kept = [
        int(cell_means(x[:41], leaves, Levels((2, 4)), config, last=last)[4].any(axis=1).sum())
        for last in (False, True)
    ]
    assert kept == [4, 3]


def test_polishing_lowers_the_inertia_and_is_not_done_twice(x, tmp_path):
    random = np.random.Generator(np.random.Philox(key=2))
    top = unit_rows(random.normal(size=(4, 6)))
    grown = {4: top, 16: unit_rows(np.repeat(top, 4, axis=0) + 0.3 * random.normal(size=(16, 6)))}
    levels = Levels((4, 16))
    before = assign_leaves(x, Tree(levels, grown), 8)[1].mean()
    tree = polish(x, x[:0], grown, levels, Cluster(), tmp_path)
    assert assign_leaves(x, tree, 8)[1].mean() < 0.9 * before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["polish-0.npz", "polish-1.npz"]
    again = polish(
        x[:0],
        x[:0],
        {4: top, 16: np.zeros((16, 6), np.float32)} | grown,
        levels,
        Cluster(),
        tmp_path,
    )
    assert again.centroids[16].tobytes() == tree.centroids[16].tobytes()
    (tmp_path / "polish-1.npz").unlink()
    assert (
        polish(x, x[:0], grown, levels, Cluster(), tmp_path).centroids[16].tobytes()
        == tree.centroids[16].tobytes()
    )


def test_margins_come_from_unseen_vectors_and_one_level_is_left_alone(x, tmp_path):
    flat = {4: unit_rows(np.eye(4, 6))}
    tree = polish(x, x[:600], flat, Levels((4,)), Cluster(), tmp_path)
    assert (tree.centroids[4].tobytes(), tree.margins) == (flat[4].tobytes(), None)
    deep = {
        4: flat[4],
        8: unit_rows(np.repeat(flat[4], 2, axis=0) + 0.1 * np.eye(6)[np.arange(8) % 6]),
    }
    assert len(polish(x, x[:600], deep, Levels((4, 8)), Cluster(), tmp_path).margins) == 1


def test_margins_are_not_learnt_from_the_sample(x, tmp_path):
    top = unit_rows(np.eye(4, 6))
    grown = {4: top, 8: unit_rows(np.repeat(top, 2, axis=0) + 0.1 * np.eye(6)[np.arange(8) % 6])}
    levels = Levels((4, 8))
    tree = polish(x[:2000], x[2000:], grown, levels, Cluster(), tmp_path)
    assert (
        tree.margins == with_margins(x[2000:], tree).margins != with_margins(x[:2000], tree).margins
    )
