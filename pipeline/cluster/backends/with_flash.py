"""k-means in flash-kmeans, whose kernels for GPUs never write the cosines to memory.

It finds the one nearest centroid of a row, so torch follows several cells down a tree.
"""

from threading import Lock

import numpy as np
import torch
from jaxtyping import Float16, Float32, Int64

from pipeline.cluster.backends.backend import SaveIteration, Search, run_iterations
from pipeline.cluster.backends.with_torch import TorchBackend
from pipeline.cluster.tree import Tree
from pipeline.config import Cluster


class FlashBackend:
    """See `pipeline.cluster.backends.backend.Backend`."""

    name = "flash"

    def __init__(self, device: str = "cuda") -> None:
        self.device = device
        self._gpu = Lock()

    def train(
        self,
        x: Float16[np.ndarray, "n dim"],
        centroids: Float32[np.ndarray, "k dim"],
        config: Cluster,
        workers: int = 1,  # noqa: ARG002 - a GPU does one training at a time
        first: int = 0,
        save: SaveIteration | None = None,
    ) -> Float32[np.ndarray, "k dim"]:
        from flash_kmeans import batch_kmeans_Euclid  # noqa: PLC0415 - an optional package

        with self._gpu:
            rows = torch.from_numpy(np.array(x)).to(self.device)[None]

            def step(
                current: Float32[np.ndarray, "k dim"],
            ) -> tuple[Int64[np.ndarray, " n"], Float32[np.ndarray, "k dim"]]:
                # Of unit vectors, the nearest is the one with the largest cosine.
                cells, means, _ = batch_kmeans_Euclid(
                    rows,
                    len(current),
                    max_iters=1,
                    init_centroids=torch.from_numpy(current).to(rows)[None],
                )
                directions = torch.nn.functional.normalize(means[0].float(), dim=1)
                return cells[0].long().cpu().numpy(), directions.cpu().numpy()

            return run_iterations(x, centroids, step, config, first, save)

    def search(self, tree: Tree, beam: int) -> Search:
        return TorchBackend().search(tree, beam)
