import numpy as np
import pytest
import torch

from pipeline.cluster.kmeans import unit_rows
from pipeline.cluster.lloyd import lloyd
from pipeline.config import Cluster


def random(n: int, dim: int, key: int) -> np.ndarray:
    return unit_rows(np.random.Generator(np.random.Philox(key=key)).normal(size=(n, dim)))


@pytest.fixture
def x() -> np.ndarray:
    return random(3000, 16, 1).astype(np.float16)


def by_hand(x, centroids, iterations):
    """Lloyd's iterations in double precision."""
    x, centroids = x.astype(np.float64), centroids.astype(np.float64)
    for _ in range(iterations):
        cells = (x @ centroids.T).argmax(axis=1)
        sums = np.stack([x[cells == c].sum(axis=0) for c in range(len(centroids))])
        centroids = sums / np.linalg.norm(sums, axis=1, keepdims=True)
    return centroids


def test_iterations_follow_lloyds_algorithm(monkeypatch, x):
    monkeypatch.setattr("pipeline.cluster.lloyd.fast_dtype", lambda: torch.float32)
    start = random(8, 16, 2)
    for iterations in (1, 2, 5):
        assert lloyd(x, start, Cluster(iterations=iterations)) == pytest.approx(
            by_hand(x, start, iterations), abs=1e-6
        )


def test_the_fast_product_gives_the_same_inertia(x):
    start = random(8, 16, 2)
    inertia = [
        2 - 2 * (x @ c.T).max(axis=1).mean()
        for c in (lloyd(x, start, Cluster(iterations=15)), by_hand(x, start, 15))
    ]
    assert inertia[0] == pytest.approx(inertia[1], rel=2e-3)


@pytest.mark.parametrize("workers", [2, 3])
def test_threads_pieces_and_interruptions_do_not_change_the_result(monkeypatch, x, workers):
    config, start = Cluster(iterations=12, least_share=0.5, most_share=1.5), random(24, 16, 2)
    saved = {}
    whole = lloyd(x, start, config, save=saved.__setitem__)
    assert list(saved) == list(range(1, 13))
    monkeypatch.setattr("pipeline.cluster.lloyd.product_rows", lambda _: 256)
    monkeypatch.setattr("pipeline.cluster.lloyd.SUMMED_ROWS", 100)
    assert lloyd(x, start, config, workers).tobytes() == whole.tobytes()
    monkeypatch.setattr("pipeline.cluster.lloyd.MAXIMUM_CONVERTED_ROWS", 0)
    for done in (1, 6, 11, 12):
        assert lloyd(x, saved[done], config, workers, done).tobytes() == whole.tobytes()


def test_iterations_end_when_no_row_moves():
    x = np.repeat(np.eye(4), 5, axis=0).astype(np.float16)
    seen = []
    lloyd(x, random(4, 4, 3), Cluster(iterations=50), save=lambda done, _: seen.append(done))
    assert len(seen) < 10


def test_empty_cells_are_filled_again(x):
    """All but one centroid begin as copies of each other, and one is missing."""
    start = np.repeat(random(1, 16, 5), 8, axis=0)
    start[0], start[3] = random(1, 16, 6)[0], 0
    found = lloyd(x, start, Cluster(iterations=15))
    sizes = np.bincount((x @ found.T).argmax(axis=1), minlength=8)
    assert sizes.min() > 100
    good = lloyd(x, random(8, 16, 2), Cluster(iterations=15))
    assert (x @ found.T).max(axis=1).mean() == pytest.approx(
        (x @ good.T).max(axis=1).mean(), rel=0.02
    )
