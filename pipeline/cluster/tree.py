"""The cluster tree: nested centroids, and bounds for the search for a vector's leaf."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from jaxtyping import Bool, Float32

from data_catalog.errors import UserError
from data_catalog.format.layout import CENTROIDS, Levels


@dataclass(frozen=True)
class Tree:
    """Nested centroids.

    The children of cell p of one level are the cells `p * b` to `p * b + b - 1` of the next level,
    where b is the ratio of their sizes.
    """

    levels: Levels
    # By granularity, with unit norm. The centroid of an empty cell is zero.
    centroids: dict[int, Float32[np.ndarray, "cells dim"]]
    # Per level except the last. A cell whose cosine is at most this much below the best one may
    # contain the nearest leaf.
    margins: tuple[float, ...] | None = None
    # Squared distance that includes 99 % of a leaf's sample. 0 for an empty leaf.
    radius: Float32[np.ndarray, " leaves"] | None = None

    def to_level(self, granularity: int) -> "Tree":
        """Return the tree of the upper levels, down to this one."""
        built = tuple(k for k in self.levels.granularities if k <= granularity)
        return Tree(
            Levels(built),
            {k: self.centroids[k] for k in built},
            self.margins[: len(built) - 1] if self.margins else None,
        )

    def __post_init__(self) -> None:
        above = np.array([True])
        for k in self.levels.granularities:
            level = self.centroids.get(k)
            if level is None or level.ndim != 2 or len(level) != k:
                shape = None if level is None else level.shape
                raise UserError(
                    f"tree: level {k} has centroids of shape {shape}. "
                    f"Expected ({k}, dim). Train the tree again."
                )
            filled = self.filled[k]
            if not np.array_equal(filled.reshape(len(above), -1).any(axis=1), above):
                raise UserError(
                    f"tree: a filled cell above level {k} has only empty children, or an empty "
                    "cell has filled children. Train the tree again."
                )
            above = filled

    @cached_property
    def filled(self) -> dict[int, Bool[np.ndarray, " cells"]]:
        """Mask of the cells of each level that are not empty."""
        return {k: np.asarray(level.any(axis=1)) for k, level in self.centroids.items()}

    @property
    def dimension(self) -> int:
        return int(self.centroids[self.levels.leaves].shape[1])


def load_tree(path: Path) -> Tree:
    """Read a tree from `centroids.npz`, or from a part or a catalog's `tree` folder that holds it.

    Raises:
        UserError: The file is missing, or it is not a tree.
    """
    source = path / CENTROIDS if path.is_dir() else path
    try:
        with source.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            centroids = {int(name): arrays[name] for name in arrays.files if name.isdecimal()}
            margins = tuple(arrays["margins"].tolist()) if "margins" in arrays.files else None
            radius = arrays["radius"] if "radius" in arrays.files else None
    except (OSError, ValueError, BadZipFile) as error:
        raise UserError(
            f"{source}: the centroids cannot be read ({error}). "
            "Build the catalog or its cluster stage again."
        ) from error
    return Tree(Levels(tuple(sorted(centroids))), centroids, margins, radius)


def save_tree(tree: Tree, path: Path) -> None:
    """Write `centroids.npz`: one array of centroids per level, named after its granularity.

    The arrays `margins` and `radius` are added if the tree has them.
    """
    arrays = {str(k): array for k, array in tree.centroids.items()}
    if tree.margins is not None:
        arrays["margins"] = np.array(tree.margins)
    if tree.radius is not None:
        arrays["radius"] = tree.radius
    np.savez(path, allow_pickle=False, **arrays)
