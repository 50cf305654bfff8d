import numpy as np
import pytest

from pipeline.cluster import kmeans
from pipeline.cluster.kmeans import assign_and_merge, nearest_centroid, nearest_centroids, unit_rows
from pipeline.config import Cluster

pytestmark = pytest.mark.usefixtures("each_backend")


def blobs(centres: int, each: int, dim: int = 16, spread: float = 0.02):
    """Unit vectors around `centres` of the axes, and which axis each is near."""
    random = np.random.Generator(np.random.Philox(key=5))
    label = np.repeat(np.arange(centres), each)
    return unit_rows(np.eye(dim)[label] + spread * random.normal(size=(len(label), dim))), label


def spherical_kmeans(x, k, iterations, seed, **cluster):
    random = np.random.Generator(np.random.Philox(key=[seed, 2]))
    return kmeans.spherical_kmeans(
        x.astype(np.float16), k, Cluster(iterations=iterations, **cluster), random
    ).centroids


def test_unit_rows_keeps_zero_rows():
    found = unit_rows(np.array([[3, 4], [0, 0]], np.float16))
    assert found.dtype == np.float32
    assert found == pytest.approx(np.array([[0.6, 0.8], [0, 0]]))


def test_separate_groups_are_found_and_centroids_are_their_directions():
    x, label = blobs(8, 50)
    centroids = spherical_kmeans(x, 8, 20, 0)
    cell, distance = nearest_centroid(x, centroids)
    pairs = set(zip(label.tolist(), cell.tolist(), strict=True))
    assert len(pairs) == 8
    for group, found in pairs:
        assert centroids[found] == pytest.approx(
            unit_rows(x[label == group].mean(axis=0, keepdims=True))[0], abs=1e-3
        )
    assert distance == pytest.approx(2 - 2 * (x * centroids[cell]).sum(axis=1), abs=1e-5)
    assert distance.max() < 0.1


def test_all_points_are_used_for_any_number_per_centroid():
    """Two points of 2,000 lie apart: a sample of 256 a centroid would nearly always miss them."""
    x = np.zeros((2000, 2), np.float32)
    x[:, 0] = 1
    x[[700, 1700]] = [0, 1]
    x[:600] = unit_rows(np.stack([np.ones(600), np.linspace(-0.01, 0.01, 600)], axis=1))
    centroids = spherical_kmeans(x, 2, 10, 0)
    assert sorted(np.bincount(nearest_centroid(x, centroids)[0]).tolist()) == [2, 1998]


@pytest.mark.parametrize("k", [3, 700])  # both ways to start
def test_bytes_depend_on_the_seed(k):
    x = unit_rows(np.random.Generator(np.random.Philox(key=5)).normal(size=(2000, 8)))
    assert spherical_kmeans(x, k, 5, 1).tobytes() == spherical_kmeans(x, k, 5, 1).tobytes()
    assert spherical_kmeans(x, k, 5, 1).tobytes() != spherical_kmeans(x, k, 5, 2).tobytes()


def test_points_are_centroids_if_there_are_at_most_as_many_as_cells():
    x = np.eye(3, dtype=np.float32)
    found = spherical_kmeans(x, 5, 10, 0)
    assert sorted(found.tolist(), reverse=True) == [
        [1, 0, 0],
        [0, 1, 0],
        [0, 0, 1],
        [0, 0, 0],
        [0, 0, 0],
    ]


def test_copies_leave_cells_empty():
    x = np.repeat(np.eye(3, dtype=np.float32), 100, axis=0)
    found = spherical_kmeans(x, 4, 10, 0)
    assert found.any(axis=1).sum() == 3
    assert np.bincount(nearest_centroid(x, found)[0], minlength=4).tolist() == [100, 100, 100, 0]


def test_cells_that_no_point_is_nearest_to_are_empty():
    """All points differ, but only by rounding, so their cosines do not separate 20 groups."""
    noise = 1e-6 * np.random.Generator(np.random.Philox(key=1)).normal(size=(900, 3))
    found = spherical_kmeans(unit_rows(np.eye(3)[np.arange(900) % 3] + noise), 20, 5, 0)
    assert found.any(axis=1).sum() == 3


def test_every_filled_cell_has_a_point():
    x = np.repeat(
        unit_rows(np.random.Generator(np.random.Philox(key=5)).normal(size=(40, 4))), 20, axis=0
    )
    for k in (30, 39, 40, 41):
        found = spherical_kmeans(x, k, 10, 0)
        assert np.linalg.norm(found, axis=1)[found.any(axis=1)] == pytest.approx(1, abs=1e-6)
        assert np.array_equal(
            np.bincount(nearest_centroid(x, found)[0], minlength=k) > 0, found.any(axis=1)
        )


def test_no_points_give_only_empty_cells():
    assert spherical_kmeans(np.zeros((0, 4), np.float32), 2, 10, 0).tolist() == [[0] * 4] * 2


def test_empty_cells_are_never_nearest():
    centroids = np.array([[0, 0], [0, -1], [0, 0], [-1, 0]], np.float32)
    x = np.array([[1, 0], [0.6, -0.8]], np.float32)
    index, squared = nearest_centroid(x, centroids)
    assert (index.tolist(), squared.tolist()) == ([1, 1], pytest.approx([2, 0.4]))
    few, cosine = nearest_centroids(x, centroids, 5)
    assert few.tolist() == [[1, 3], [1, 3]]
    assert cosine == pytest.approx(np.array([[0, -1], [0.8, -0.6]]))


def test_only_empty_cells_are_an_error():
    with pytest.raises(ValueError, match="centroids: "):
        nearest_centroid(np.eye(2, dtype=np.float32), np.zeros((3, 2), np.float32))


def test_a_vector_on_its_centroid_has_distance_zero():
    x = unit_rows(np.random.Generator(np.random.Philox(key=5)).normal(size=(200, 384)))
    squared = nearest_centroid(x, x)[1]
    assert squared.min() >= 0
    assert squared.max() < 1e-5
    assert kmeans.squared_distance(np.array([1 + 1e-6], np.float32)).tolist() == [0]


def test_settling_merges_small_cells_smallest_first():
    """Cells at 0, 10, 20 and 90 degrees have 5, 1, 2 and 4 vectors.

    After the second is removed, the third has enough.
    """
    angles = np.deg2rad(np.array([0, 10, 20, 90, 200]))
    centroids = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    at = np.deg2rad([0, 1, 2, 3, 4, 13, 20, 21, 88, 89, 90, 91])
    x = np.stack([np.cos(at), np.sin(at)], axis=1).astype(np.float16)
    free = assign_and_merge(x, centroids, 1)
    assert np.bincount(free.cell, minlength=5).tolist() == [5, 1, 2, 4, 0]
    assert free.centroids.any(axis=1).tolist() == [True, True, True, True, False]
    found = assign_and_merge(x, centroids, 3)
    assert np.bincount(found.cell, minlength=5).tolist() == [5, 0, 3, 4, 0]
    assert found.centroids.any(axis=1).tolist() == [True, False, True, True, False]
    assert found.cosine[5] == pytest.approx(np.cos(np.deg2rad(7)), abs=1e-3)
    assert centroids.any(axis=1).all()  # the argument is left alone
