from dataclasses import replace

import numpy as np
import pytest

from data_catalog import UserError
from data_catalog.format.layout import Levels
from pipeline.cluster.kmeans import nearest_centroid, unit_rows
from pipeline.cluster.search import Recall, assign_leaves, out_of_distribution, recall, with_margins
from pipeline.cluster.tree import Tree
from tests.helpers.tiny_tree import angle, compass_tree

pytestmark = pytest.mark.usefixtures("each_backend")


def nested(seed: int = 5, dim: int = 12) -> Tree:
    """4, 16 and 128 cells: children lie around their parents."""
    random = np.random.Generator(np.random.Philox(key=seed))
    top = unit_rows(random.normal(size=(4, dim)))
    middle = unit_rows(np.repeat(top, 4, axis=0) + 0.25 * random.normal(size=(16, dim)))
    return Tree(
        Levels((4, 16, 128)),
        {
            4: top,
            16: middle,
            128: unit_rows(np.repeat(middle, 8, axis=0) + 0.2 * random.normal(size=(128, dim))),
        },
    )


@pytest.fixture
def compass() -> Tree:
    return compass_tree()


@pytest.mark.parametrize("beam", [1, 2, 3, 4, 100])
def test_vectors_go_to_the_nearest_leaf(compass, beam):
    leaf, distance = assign_leaves(angle(-31, 29, 61, 119, 170, -180), compass, beam)
    assert leaf.tolist() == [0, 1, 2, 3, 4, 4]
    assert (leaf.dtype, distance.dtype) == (np.uint32, np.float32)
    assert distance == pytest.approx(2 - 2 * np.cos(np.deg2rad([1, 1, 1, 1, 10, 0])), abs=1e-6)


def test_lengths_and_half_precision_do_not_matter(compass):
    leaf, distance = assign_leaves((7 * angle(29, 119)).astype(np.float16), compass, 1)
    assert leaf.tolist() == [1, 3]
    assert distance == pytest.approx(2 - 2 * np.cos(np.deg2rad(1)), abs=1e-4)


def test_a_narrow_beam_can_miss_the_nearest_leaf():
    """40 degrees: the nearer parent is at 0, but the nearest leaf is the other parent's."""
    tree = Tree(Levels((2, 4)), {2: angle(0, 90), 4: angle(-10, 10, 50, 130)})
    x = angle(40, 9)
    assert assign_leaves(x, tree, 1)[0].tolist() == [1, 1]
    assert assign_leaves(x, tree, 2)[0].tolist() == [2, 1]
    near, far, other = (2 - 2 * np.cos(np.deg2rad(d)) for d in (10, 30, 1))
    narrow = recall(x, tree, 1)
    assert narrow.found == 0.5
    assert narrow.excess == pytest.approx((far + other) / (near + other) - 1, abs=1e-4)
    assert recall(x, tree, 2) == Recall(1, 0)


@pytest.mark.parametrize("workers", [1, 2, 3])
@pytest.mark.parametrize("rows", [64, 100_000])
def test_search_over_three_levels_agrees_with_exact_search(monkeypatch, rows, workers):
    monkeypatch.setattr("pipeline.cluster.search.MINIMUM_SEARCH_ROWS", rows)
    monkeypatch.setattr("pipeline.cluster.search.SEARCH_ROWS_PER_PARENT", 1)
    tree = nested()
    x = unit_rows(np.random.Generator(np.random.Philox(key=5)).normal(size=(500, 12)))
    exact, least = nearest_centroid(x, tree.centroids[128])
    leaf, distance = assign_leaves(x, tree, 16, workers)
    assert (leaf == exact).all()
    assert distance == pytest.approx(least, abs=1e-5)
    shares = [recall(x, tree, beam).found for beam in (1, 2, 4, 8, 16)]
    assert shares == sorted(shares)
    assert shares[0] < 0.7
    assert shares[2] > 0.85
    assert shares[4] == 1


def test_near_ties_are_decided_in_float32():
    """Leaves that differ by less than bfloat16 can tell."""
    base = unit_rows(np.random.Generator(np.random.Philox(key=3)).normal(size=(1, 64)))
    leaves = unit_rows(
        base + 2e-4 * np.random.Generator(np.random.Philox(key=4)).normal(size=(64, 64))
    )
    base, leaves = base.astype(np.float32), leaves.astype(np.float32)
    tree = Tree(Levels((1 * 2, 64)), {2: np.repeat(base, 2, axis=0), 64: leaves})
    leaf, distance = assign_leaves(leaves, tree, 2)
    assert (leaf.tolist(), distance.max()) == (list(range(64)), pytest.approx(0, abs=1e-6))


def test_ties_go_to_the_first_leaf():
    tree = Tree(Levels((2, 4)), {2: angle(0, 90), 4: angle(10, 45, 45, 80)})
    assert assign_leaves(angle(45, 46), tree, 2)[0].tolist() == [1, 1]


def test_a_margin_follows_only_parents_nearly_as_near_as_the_best():
    """40 degrees is 40 from the first parent and 50 from the second, whose cosine is 0.123 less."""
    tree = Tree(Levels((2, 4)), {2: angle(0, 90), 4: angle(-10, 10, 50, 130)})
    for margin, leaf in ((0.12, 1), (0.13, 2)):
        assert assign_leaves(3 * angle(40), replace(tree, margins=(margin,)), 2)[0].tolist() == [
            leaf
        ]
    assert assign_leaves(angle(40), replace(tree, margins=(0.13,)), 1)[0].tolist() == [
        1
    ]  # the beam is the most that are followed


def test_margins_are_quantiles_of_the_gaps_to_the_parents_of_nearest_leaves(monkeypatch):
    monkeypatch.setattr("pipeline.cluster.search.MINIMUM_MARGIN_VECTORS", 4)
    tree = Tree(Levels((2, 4)), {2: angle(0, 90), 4: angle(-10, 10, 50, 130)})
    # The leaf of the last vector is at 50 degrees, below the second parent. That parent is 59
    # degrees away, and the first one 31 degrees.
    x = angle(0, 10, 20, 31)
    gap = np.cos(np.deg2rad(31)) - np.cos(np.deg2rad(59))
    # The quantile 0.99 lies 97 % of the way from the third gap, which is 0, to the last one.
    assert with_margins(x, tree).margins == (pytest.approx(gap * 0.97, abs=1e-5),)
    assert with_margins(x[:3], tree).margins is None
    assert with_margins(x, tree.to_level(2)).margins is None


def test_learnt_margins_find_nearly_all_and_follow_fewer():
    tree = nested()
    random = np.random.Generator(np.random.Philox(key=9))
    x, unseen = (
        unit_rows(
            tree.centroids[128][random.integers(128, size=2000)]
            + 0.1 * random.normal(size=(2000, 12))
        )
        for _ in range(2)
    )
    learnt = with_margins(x, tree)
    assert 0.97 < recall(unseen, learnt, 16).found < 1
    assert recall(unseen, tree, 1).found < recall(unseen, learnt, 16).found


def test_a_beam_wider_than_the_filled_cells_never_ends_in_an_empty_leaf(compass):
    leaf, distance = assign_leaves(angle(*range(0, 360, 5)), compass, 3)
    assert set(leaf.tolist()) == {0, 1, 2, 3, 4}
    assert distance.max() <= 4


def test_an_empty_child_is_never_the_nearest():
    tree = Tree(
        Levels((2, 4)),
        {
            2: np.append(angle(0), [[0, 0]], 0).astype(np.float32),
            4: np.append(angle(0), np.zeros((3, 2)), 0).astype(np.float32),
        },
    )
    leaf, distance = assign_leaves(angle(180), tree, 1)
    assert (leaf.tolist(), distance.tolist()) == ([0], [pytest.approx(4)])


def test_no_vectors_give_no_leaves(compass):
    leaf, distance = assign_leaves(np.zeros((0, 2), np.float32), compass, 2)
    assert (leaf.shape, distance.shape) == ((0,), (0,))


def test_vectors_of_another_length_are_refused(compass):
    with pytest.raises(UserError, match=r"tree: .*2 dimensions, .*3"):
        assign_leaves(np.ones((1, 3), np.float32), compass, 1)


def test_out_of_distribution_is_the_share_outside_the_radius_of_the_leaf(compass):
    leaves, distances = (
        np.array([0, 1, 1, 4], np.uint32),
        np.array([0.1, 0.1, 0.3, 0.2], np.float32),
    )
    known = replace(compass, radius=np.array([0.05, 0.2, 0, 0, 0.2, 0, 0, 0], np.float32))
    assert out_of_distribution(leaves, distances, known) == 0.5
    assert out_of_distribution(leaves[:0], distances[:0], known) == 0
    with pytest.raises(UserError, match=r"tree: .*radii"):
        out_of_distribution(leaves, distances, compass)
