import numpy as np
import pytest
import torch

from pipeline.cluster.kmeans import unit_rows
from pipeline.cluster.products import best_cells, padded_rows, rounding_slack


def random(n: int, dim: int, key: int = 1) -> np.ndarray:
    return unit_rows(np.random.Generator(np.random.Philox(key=key)).normal(size=(n, dim)))


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
