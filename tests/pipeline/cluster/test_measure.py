import numpy as np
import pytest

from data_catalog.format.layout import Levels
from pipeline.cluster.measure import measure_tree, with_radius
from pipeline.cluster.tree import Tree

pytestmark = pytest.mark.usefixtures("each_backend")


def angles(*degrees: float) -> np.ndarray:
    radians = np.deg2rad(degrees)
    return np.stack([np.cos(radians), np.sin(radians)], axis=1).astype(np.float32)


def squared(degrees: float) -> float:
    return 2 - 2 * np.cos(np.deg2rad(degrees))


@pytest.fixture
def tree() -> Tree:
    """The second level's last cell is empty."""
    fine = angles(-10, 10, 50, 130)
    fine[3] = 0
    return Tree(Levels((2, 4)), {2: angles(0, 60), 4: fine})


def test_radii_include_a_share_of_the_sample_of_each_leaf(tree):
    sample = np.concatenate([angles(*range(10, 20)), angles(-10), angles(-13)])
    found, counts, inertia = with_radius(tree, sample, 0.9, 1)
    assert counts.tolist() == [2, 10, 0, 0]
    away = [squared(d) for d in (*range(10), 0, 3)]
    assert inertia == pytest.approx(np.mean(away), abs=1e-6)
    # 90 % of two vectors are both, and of ten are nine. A leaf without vectors uses all of them.
    assert found.radius == pytest.approx(
        [squared(3), squared(8), np.quantile(away, 0.9), 0], abs=1e-6
    )


def test_measures_of_a_level_include_cells_and_search(tree):
    known, *_ = with_radius(tree, angles(10, 12, -10, -11, 50, 40), 0.99, 1)
    measures = measure_tree(known, np.array([2, 2, 2, 0]), angles(28, 10))
    assert measures["2"]["empty"] == 0
    assert measures["2"]["sizes"] == {"smallest": 2, "median": 3.0, "largest": 4}
    assert measures["4"]["empty"] == 1
    assert measures["4"]["sizes"] == {"smallest": 2, "median": 2.0, "largest": 2}
    assert measures["4"]["inertia"] == pytest.approx(squared(18) / 2, abs=1e-6)
    assert measures["4"]["search"]["1"] == {"found": 1.0, "excess": pytest.approx(0, abs=1e-4)}
    assert (
        measures["4"]["beyond"] == 0.5
    )  # 28 degrees lie 18 from the leaf at 10, its sample at most 2


def test_measures_include_what_a_narrow_search_misses(tree):
    measures = measure_tree(
        with_radius(tree, angles(10, -10, 50), 0.99, 1)[0],
        np.array([1, 1, 1, 0]),
        angles(29, 31.0, 10),
    )
    assert measures["4"]["search"]["2"]["found"] == 1
    only = measures["4"]["search"]["1"]
    assert (measures["2"]["search"]["1"]["found"], only["found"]) == (1, 1)
    wide = Tree(
        Levels((2, 4)),
        {2: angles(0, 90), 4: angles(-10, 10, 50, 130)},
        None,
        np.ones(4, np.float32),
    )
    missed = measure_tree(wide, np.array([1, 1, 1, 1]), angles(40, 9))["4"]["search"]["1"]
    assert missed["found"] == 0.5
    assert missed["excess"] == pytest.approx(
        (squared(30) + squared(1)) / (squared(10) + squared(1)) - 1, rel=1e-3
    )


def test_without_unseen_vectors_only_sizes_are_measured(tree):
    measures = measure_tree(tree, np.array([1, 2, 3, 0]), angles()[:0])
    assert measures["4"] == {"empty": 1, "sizes": {"smallest": 1, "median": 2.0, "largest": 3}}
