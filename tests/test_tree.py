import numpy as np
import pytest

from data_catalog import UserError
from data_catalog.layout import Levels
from pipeline import tree as module
from pipeline.cluster import grow
from pipeline.kmeans import nearest, unit
from pipeline.tree import Recall, Tree, assign, load_tree, recall


def angle(*degrees: float) -> np.ndarray:
    radians = np.deg2rad(degrees)
    return np.stack([np.cos(radians), np.sin(radians)], axis=1).astype(np.float32)


@pytest.fixture
def compass() -> Tree:
    """Cells around 0, 90, 180 degrees and an empty one; each filled one has two children, but the third only one."""
    coarse, fine = np.zeros((4, 2), np.float32), np.zeros((8, 2), np.float32)
    coarse[:3] = angle(0, 90, 180)
    fine[:5] = angle(-30, 30, 60, 120, 180)
    return Tree(Levels((4, 8)), {4: coarse, 8: fine})


@pytest.mark.parametrize("beam", [1, 2, 3, 4, 100])
def test_vectors_go_to_the_nearest_leaf(compass, beam):
    leaf, distance = assign(angle(-31, 29, 61, 119, 170, -180), compass, beam)
    assert leaf.tolist() == [0, 1, 2, 3, 4, 4]
    assert (leaf.dtype, distance.dtype) == (np.uint32, np.float32)
    assert distance == pytest.approx(2 - 2 * np.cos(np.deg2rad([1, 1, 1, 1, 10, 0])), abs=1e-6)


def test_lengths_and_half_precision_do_not_matter(compass):
    leaf, distance = assign((7 * angle(29, 119)).astype(np.float16), compass, 1)
    assert leaf.tolist() == [1, 3]
    assert distance == pytest.approx(2 - 2 * np.cos(np.deg2rad(1)), abs=1e-4)


def test_a_narrow_beam_can_miss_and_recall_says_so():
    """40 degrees: the nearer parent is at 0, but the nearest leaf is the other parent's."""
    tree = Tree(Levels((2, 4)), {2: angle(0, 90), 4: angle(-10, 10, 50, 130)})
    x = angle(40, 9)
    assert assign(x, tree, 1)[0].tolist() == [1, 1]
    assert assign(x, tree, 2)[0].tolist() == [2, 1]
    near, far, other = (2 - 2 * np.cos(np.deg2rad(d)) for d in (10, 30, 1))
    assert recall(x, tree, 1) == Recall(0.5, pytest.approx((far + other) / (near + other) - 1, abs=1e-4))
    assert recall(x, tree, 2) == Recall(1, 0)


@pytest.mark.parametrize("cosines", [1_000, 100_000])
def test_three_levels_agree_with_the_search_of_every_leaf(monkeypatch, cosines):
    monkeypatch.setattr(module, "CHUNK_COSINES", cosines)
    x = unit(np.random.Generator(np.random.Philox(key=5)).normal(size=(500, 12)))
    levels = Levels((4, 16, 128))
    tree = Tree(levels, grow(x, levels, 5, 0)[0])
    exact, least = nearest(x, tree.centroids[128])
    leaf, distance = assign(x, tree, 16)
    assert (leaf == exact).all()
    assert distance == pytest.approx(least, abs=1e-5)
    shares = [recall(x, tree, beam).found for beam in (1, 2, 4, 8, 16)]
    assert shares == sorted(shares)
    assert shares[0] < 0.95 < shares[2] <= shares[4] == 1


def test_a_beam_wider_than_the_filled_cells_never_ends_in_an_empty_leaf(compass):
    leaf, distance = assign(angle(*range(0, 360, 5)), compass, 3)
    assert set(leaf.tolist()) == {0, 1, 2, 3, 4}
    assert distance.max() <= 4


def test_an_empty_child_is_not_taken_for_a_distant_one():
    tree = Tree(Levels((2, 4)), {2: np.append(angle(0), [[0, 0]], 0), 4: np.append(angle(0), np.zeros((3, 2)), 0).astype(np.float32)})
    leaf, distance = assign(angle(180), tree, 1)
    assert (leaf.tolist(), distance.tolist()) == ([0], [pytest.approx(4)])


def test_no_vectors_have_no_leaves(compass):
    leaf, distance = assign(np.zeros((0, 2), np.float32), compass, 2)
    assert (leaf.shape, distance.shape) == ((0,), (0,))


def test_vectors_of_another_length_are_refused(compass):
    with pytest.raises(UserError, match="vectors of 3 dimensions, but a tree of 2"):
        assign(np.ones((1, 3), np.float32), compass, 1)


def test_a_tree_is_read_from_a_folder_or_a_file(compass, tmp_path):
    np.savez(tmp_path / "centroids.npz", **{str(k): array for k, array in compass.centroids.items()})
    for place in (tmp_path, tmp_path / "centroids.npz"):
        found = load_tree(place)
        assert found.levels == Levels((4, 8))
        assert np.array_equal(found.centroids[8], compass.centroids[8])


def test_a_missing_or_broken_file_is_refused(tmp_path):
    with pytest.raises(UserError, match="no centroids can be read here"):
        load_tree(tmp_path)
    (tmp_path / "centroids.npz").write_bytes(b"PK\x03\x04 cut short")
    with pytest.raises(UserError, match="no centroids can be read here"):
        load_tree(tmp_path)


def test_levels_must_fit_together(compass):
    with pytest.raises(UserError, match=r"level 8 has centroids of shape \(4, 2\)"):
        Tree(Levels((4, 8)), {4: compass.centroids[4], 8: compass.centroids[4]})
    with pytest.raises(UserError, match="only empty children"):
        Tree(Levels((4, 8)), {4: compass.centroids[4], 8: np.where(np.arange(8)[:, None] == 4, 0, compass.centroids[8])})
