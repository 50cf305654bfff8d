import numpy as np
import pytest
import torch

from pipeline.cluster import kmeans_plus_plus
from pipeline.cluster.kmeans import unit_rows
from pipeline.cluster.kmeans_plus_plus import _quotas, choose_centroids


def random(key: int = 0) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=key))


def test_every_distant_group_gets_a_centroid():
    label = np.repeat(np.arange(16), [400, *[10] * 15])
    x = unit_rows(np.eye(16)[label] + 0.01 * random().normal(size=(len(label), 16)))
    for key in range(5):
        assert sorted(choose_centroids(x, 16, random(key)).argmax(axis=1).tolist()) == list(
            range(16)
        )


def test_a_small_number_of_centroids_has_several_starts(monkeypatch):
    """Two pairs of groups: a start may leave one without a centroid of its own."""
    at = np.deg2rad(np.array([0, 40, 180, 220]))
    groups = np.stack([np.cos(at), np.sin(at), np.zeros(4), np.zeros(4)], axis=1)
    x = unit_rows(groups[np.arange(400) % 4] + 0.3 * random(1).normal(size=(400, 4))).astype(
        np.float32
    )

    def inertia(key: int) -> float:
        return kmeans_plus_plus._tried(
            torch.from_numpy(x), torch.from_numpy(choose_centroids(x, 4, random(key)))
        )

    several = [inertia(key) for key in range(20)]
    monkeypatch.setattr("pipeline.cluster.kmeans_plus_plus._MAXIMUM_STARTS", 1)
    one = [inertia(key) for key in range(20)]
    assert max(several) < max(one)
    assert np.mean(several) < np.mean(one)


@pytest.mark.parametrize("widest", [512, 4])
def test_the_start_has_distinct_rows_and_depends_on_the_seed(monkeypatch, widest):
    monkeypatch.setattr("pipeline.cluster.kmeans_plus_plus.MAXIMUM_DIRECT_CENTROIDS", widest)
    x = unit_rows(random(1).normal(size=(300, 8))).astype(np.float16)
    chosen = choose_centroids(x, 40, random(2))
    rows = {row.tobytes() for row in x.astype(np.float32)}
    assert len({row.tobytes() for row in chosen} & rows) == 40
    assert (
        chosen.tobytes()
        == choose_centroids(x, 40, random(2)).tobytes()
        != choose_centroids(x, 40, random(3)).tobytes()
    )


def test_as_many_centroids_as_rows_are_all_rows(monkeypatch):
    monkeypatch.setattr("pipeline.cluster.kmeans_plus_plus.MAXIMUM_DIRECT_CENTROIDS", 4)
    x = np.eye(9, dtype=np.float32)
    assert sorted(choose_centroids(x, 9, random()).argmax(axis=1).tolist()) == list(range(9))


def test_quotas_follow_the_counts_and_never_exceed_them():
    assert _quotas(np.array([60, 30, 10]), 10).tolist() == [6, 3, 1]
    assert _quotas(np.array([97, 2, 1]), 98).tolist() == [95, 2, 1]
    assert _quotas(np.array([1, 0, 2]), 3).tolist() == [1, 0, 2]
