import numpy as np
import pytest

from pipeline.cluster.backends.backend import nearest_cells
from pipeline.cluster.balance import rebalance, smallest_allowed
from pipeline.cluster.kmeans import spherical_kmeans, unit_rows
from pipeline.config import Cluster

pytestmark = pytest.mark.usefixtures("each_backend")


def angles(*degrees: float) -> np.ndarray:
    radians = np.deg2rad(degrees)
    return np.stack([np.cos(radians), np.sin(radians)], axis=1)


def rows(*degrees: float) -> np.ndarray:
    return angles(*degrees).astype(np.float16)


def degrees(centroids) -> list[float]:
    return np.rad2deg(np.arctan2(centroids[:, 1], centroids[:, 0])).round(1).tolist()


def test_an_empty_cell_gets_half_of_the_largest():
    x, cells = rows(0, 10, 20, 30, 90, 91), np.array([0, 0, 0, 0, 2, 2])
    centroids = angles(15, 0, 90.5).astype(np.float32)
    centroids[1] = 0
    found = rebalance(x, cells, centroids, Cluster())
    assert sorted(degrees(found[:2])) == pytest.approx(
        [15 - 11.2, 15 + 11.2], abs=0.5
    )  # the root mean square of 5 and 15
    assert degrees(found)[2] == 90.5
    assert centroids[1].tolist() == [0, 0]  # the argument is left alone


def test_copies_cannot_be_split_and_others_are_instead():
    x, cells = rows(0, 0, 0, 0, 40, 60), np.array([0, 0, 0, 0, 2, 2])
    centroids = angles(0, 0, 50).astype(np.float32)
    centroids[1] = 0
    assert sorted(degrees(rebalance(x, cells, centroids, Cluster()))) == pytest.approx(
        [0, 40, 60], abs=0.2
    )
    only = np.array([0, 0, 0, 0, 0, 0])
    assert rebalance(rows(*[7] * 6), only, centroids, Cluster()).tolist() == centroids.tolist()


def test_without_bounds_small_and_large_cells_stay():
    x, cells = rows(*range(0, 50), 180), np.repeat([0, 1], [50, 1])
    centroids = angles(25, 180).astype(np.float32)
    assert rebalance(x, cells, centroids, Cluster()).tolist() == centroids.tolist()


@pytest.mark.parametrize("bound", [{"least_share": 0.1}, {"most_share": 1.5}])
def test_small_cells_are_replaced_by_halves_of_large_ones(bound):
    x, cells = rows(*range(0, 50), 180), np.repeat([0, 1], [50, 1])
    found = rebalance(x, cells, angles(24.5, 180).astype(np.float32), Cluster(**bound))
    assert sorted(degrees(found)) == pytest.approx([24.5 - 14.2, 24.5 + 14.2], abs=0.5)


def test_a_large_cell_is_not_split_to_replace_one_of_similar_size():
    x, cells = rows(*range(0, 30), *range(100, 110)), np.repeat([0, 1], [30, 10])
    centroids = angles(15, 105).astype(np.float32)
    assert rebalance(x, cells, centroids, Cluster(most_share=1.2)).tolist() == centroids.tolist()


def test_kmeans_keeps_the_bounds():
    """One dense group and a few strays: free cells settle on the strays, bounded ones do not."""
    random = np.random.Generator(np.random.Philox(key=1))
    x = unit_rows(
        np.concatenate([np.eye(8)[0] + 0.1 * random.normal(size=(2000, 8)), np.eye(8)[1:]])
    ).astype(np.float16)

    def sizes(**bounds):
        config = Cluster(iterations=12, **bounds)
        found = spherical_kmeans(x, 16, config, np.random.Generator(np.random.Philox(key=[0, 2])))
        assert np.array_equal(found.cell, nearest_cells(x, found.centroids)[0])
        return np.bincount(found.cell, minlength=16)

    free, bounded = sizes(), sizes(least_share=0.25, most_share=2)
    mean = len(x) / 16
    assert free[free > 0].min() < 0.1 * mean
    assert bounded[bounded > 0].min() >= 0.25 * mean
    assert bounded.max() <= 2.2 * mean
    assert smallest_allowed(2000, 16, Cluster(least_share=0.25)) == 31.25
    assert smallest_allowed(2000, 16, Cluster()) == 1
