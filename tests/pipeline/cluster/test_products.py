import numpy as np
import pytest
import torch

from pipeline.cluster import products
from pipeline.cluster.kmeans import nearest_centroid, unit_rows
from pipeline.cluster.products import best_cells, exact_cells, padded_rows, rounding_slack


def random(n: int, dim: int, key: int = 1) -> np.ndarray:
    return unit_rows(np.random.Generator(np.random.Philox(key=key)).normal(size=(n, dim)))


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("n", [0, 1, 8192, 8193])
def test_the_nearest_cell_equals_exact_search_and_is_never_empty(n, workers):
    x, centroids = random(n, 16), random(9, 16, 2)
    centroids[[0, 5]] = 0
    cell, cosine = exact_cells(x, centroids, workers)
    expected, distance = nearest_centroid(x, centroids)
    assert cell.tolist() == expected.tolist()
    assert 2 - 2 * cosine == pytest.approx(distance, abs=1e-5)


def test_many_centroids_use_small_blocks_of_rows(monkeypatch):
    assert [products.product_rows(k) for k in (1, 4096, 8192, 2**20, 2**22)] == [
        8192,
        8192,
        4096,
        32,
        32,
    ]
    monkeypatch.setattr("pipeline.cluster.products.product_rows", lambda _: 7)
    x, centroids = random(100, 16), random(9, 16, 2)
    assert exact_cells(x, centroids)[0].tolist() == nearest_centroid(x, centroids)[0].tolist()


def test_ties_go_to_the_first_cell():
    cosine, cell = best_cells(
        torch.eye(2), torch.tensor([[0.0, 0], [-1, 0], [1, 0], [1, 0], [0, -1]]), torch.tensor([0])
    )
    assert (cosine.tolist(), cell.tolist()) == ([1, 0], [2, 1])


def test_padded_lengths_are_few_and_waste_little():
    lengths = {padded_rows(n) for n in range(1, 8193)}
    assert len(lengths) < 60
    assert all(n <= padded_rows(n) <= n + max(n / 8, 31) for n in range(1, 8193))
    assert padded_rows(8192) == 8192


@pytest.mark.parametrize("dim", [8, 64, 384])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_rounding_stays_within_the_slack(dim, dtype):
    """The rounded product of the nearest centroid is at most the slack below the best one."""
    x, centroids = 3 * random(2000, dim), random(200, dim, 2)
    truth = x.astype(np.float64) @ centroids.T.astype(np.float64)
    rounded = (torch.from_numpy(x).to(dtype) @ torch.from_numpy(centroids).to(dtype).T).float()
    best = rounded.amax(dim=1)
    below = best - rounded[torch.arange(2000), torch.from_numpy(truth.argmax(axis=1))]
    allowed = rounding_slack(best, torch.full((2000,), 3.0), dim, dtype)
    assert (below <= allowed).all()
    assert allowed.max() < (0.05 if dtype == torch.bfloat16 else 1e-5)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_finds_the_same_cells():
    x, centroids = random(10_000, 384), random(64, 384, 2)
    cell, _ = exact_cells(x, centroids)
    assert (cell == nearest_centroid(x, centroids)[0]).mean() > 0.999
