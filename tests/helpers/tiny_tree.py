"""A tree in the plane, small enough to see."""

import numpy as np

from data_catalog.format.layout import Levels
from pipeline.cluster.tree import Tree


def angle(*degrees: float) -> np.ndarray:
    radians = np.deg2rad(degrees)
    return np.stack([np.cos(radians), np.sin(radians)], axis=1).astype(np.float32)


def compass_tree() -> Tree:
    """Return a tree with cells at 0, 90 and 180 degrees and an empty one.

    The first two cells have two children each, and the third has one.
    """
    coarse, fine = np.zeros((4, 2), np.float32), np.zeros((8, 2), np.float32)
    coarse[:3] = angle(0, 90, 180)
    fine[:5] = angle(-30, 30, 60, 120, 180)
    return Tree(Levels((4, 8)), {4: coarse, 8: fine})
