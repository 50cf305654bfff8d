"""k-means in torch: Lloyd's iterations with exact sums, and a search with bounded rounding."""

import numpy as np
from jaxtyping import Float16, Float32

from pipeline.cluster.backends.backend import SaveIteration, Search
from pipeline.cluster.descend import Descent
from pipeline.cluster.lloyd import lloyd
from pipeline.cluster.products import FlatSearch, product_device
from pipeline.cluster.tree import Tree
from pipeline.config import Cluster

_FLAT_CELLS = 512  # with more cells, products in bfloat16 save more than their bounds cost


class TorchBackend:
    """See `pipeline.cluster.backends.backend.Backend`."""

    name = "torch"

    def __init__(self) -> None:
        self.device = product_device().type

    def train(
        self,
        x: Float16[np.ndarray, "n dim"],
        centroids: Float32[np.ndarray, "k dim"],
        config: Cluster,
        workers: int = 1,
        first: int = 0,
        save: SaveIteration | None = None,
    ) -> Float32[np.ndarray, "k dim"]:
        return lloyd(x, centroids, config, workers, first, save)

    def search(self, tree: Tree, beam: int) -> Search:
        if tree.levels.leaves <= _FLAT_CELLS and len(tree.levels.granularities) == 1:
            return FlatSearch(tree.centroids[tree.levels.leaves])
        return Descent(tree, beam)
