"""flash-kmeans needs an NVIDIA GPU. Here its call is tested on a processor."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from pipeline.cluster.backends.backend import Backend
from pipeline.cluster.backends.with_faiss import FaissBackend
from pipeline.cluster.backends.with_flash import FlashBackend
from pipeline.cluster.backends.with_torch import TorchBackend
from pipeline.cluster.kmeans import unit_rows
from pipeline.config import Cluster


def one_iteration(x, n_clusters, max_iters=100, tol=0.0, init_centroids=None, verbose=False):
    """Do what `flash_kmeans.batch_kmeans_Euclid` documents, in float32.

    An empty cell keeps its centroid. The cells are those of the centroids before the last move.
    """
    assert x.ndim == init_centroids.ndim == 3
    assert (x.dtype, init_centroids.dtype) == (torch.float16, torch.float16)
    assert (len(x), max_iters, init_centroids.shape[1]) == (1, 1, n_clusters)
    rows, centroids = x[0].float(), init_centroids[0].float()
    cells = torch.cdist(rows, centroids).argmin(dim=1)
    means = torch.stack(
        [
            rows[cells == c].mean(dim=0) if (cells == c).any() else centroids[c]
            for c in range(n_clusters)
        ]
    )
    return cells.int()[None], means.half()[None], 1


@pytest.fixture(params=["stand-in", "package"])
def library(request, monkeypatch):
    """Give the package where it is installed (it has a slow form for processors), or a stand-in."""
    if request.param == "package":
        pytest.importorskip("flash_kmeans")
    else:
        module = SimpleNamespace(batch_kmeans_Euclid=one_iteration)
        monkeypatch.setitem(sys.modules, "flash_kmeans", module)


@pytest.fixture
def x() -> np.ndarray:
    random = np.random.Generator(np.random.Philox(key=1))
    return unit_rows(np.eye(16)[np.arange(800) % 8] + 0.05 * random.normal(size=(800, 16))).astype(
        np.float16
    )


@pytest.mark.usefixtures("library")
def test_training_finds_the_groups_and_fills_empty_cells(x):
    """Four centroids begin as copies. The others begin in groups of their own."""
    start = x[[0, 1, 2, 3, 4, 4, 4, 4]].astype(np.float32)
    start = unit_rows(start)
    found = FlashBackend("cpu").train(x, start, Cluster(iterations=12))
    assert (found.dtype, found.shape) == (np.float32, (8, 16))
    assert np.linalg.norm(found, axis=1) == pytest.approx(1, abs=1e-3)
    assert sorted(np.bincount((x @ found.T).argmax(axis=1)).tolist()) == [100] * 8
    means = unit_rows(np.stack([x[i::8].astype(np.float32).mean(axis=0) for i in range(8)]))
    order = (means @ found.T).argmax(axis=1)
    assert found[order] == pytest.approx(means, abs=2e-3)


@pytest.mark.usefixtures("library")
def test_interrupted_training_ends_with_the_same_centroids(x):
    start, config, saved = unit_rows(x[:8].astype(np.float32)), Cluster(iterations=6), {}
    whole = FlashBackend("cpu").train(x, start, config, 2, 0, saved.__setitem__)
    assert 1 in saved
    again = FlashBackend("cpu").train(x, saved[1], config, 1, 1)
    assert again.tobytes() == whole.tobytes()


def test_every_library_has_the_two_functions_of_the_protocol():
    for made in (TorchBackend(), FaissBackend(), FlashBackend()):
        assert isinstance(made, Backend)
