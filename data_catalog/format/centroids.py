"""Centroids of the tree, and their projection to two dimensions."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from data_catalog.format.damage import reading, require
from data_catalog.format.files import CatalogFiles
from data_catalog.format.layout import CENTROIDS


def read_centroids(
    files: CatalogFiles, granularities: Sequence[int]
) -> dict[int, Float[np.ndarray, "cells dim"]]:
    """Return the centroids of these levels by granularity. Empty cells are zero.

    Only these levels are read, because the finest level of a large tree takes gigabytes.

    Raises:
        DamagedFileError: The file is missing or damaged, or does not fit these levels.
        UserError: The file is outside the catalog.
    """
    path = files.layout.tree / CENTROIDS
    files.compare(path)
    found: dict[int, Float[np.ndarray, "cells dim"]] = {}
    with (
        reading(path),
        path.open("rb") as file,
        np.load(file, allow_pickle=False) as arrays,
    ):
        for k in granularities:
            found[k] = arrays[str(k)].astype(np.float64)
    for k, level in found.items():
        finite = level.ndim == 2 and level.shape[1] >= 2 and bool(np.isfinite(level).all())
        require(
            path,
            finite and len(level) == k,
            f"centroids of level {k} have shape {level.shape}, expected ({k}, dimension) of "
            "finite numbers",
        )
    return found


def project(
    centroids: dict[int, Float[np.ndarray, "cells dim"]],
) -> tuple[dict[int, Float[np.ndarray, "cells 2"]], float]:
    """Project all centroids on the two principal axes of those of the finest level.

    Empty cells are NaN. The axis with the larger extent comes first, as pages are wide. The largest
    component of each axis is positive, so that equal catalogs have equal maps.

    Returns:
        Positions per level, and the share of the variance that the axes explain.
    """
    finest = centroids[max(centroids)]
    filled = finest[finest.any(axis=1)]
    mean = filled.mean(axis=0) if len(filled) else np.zeros(finest.shape[1])
    centred = filled - mean
    values, vectors = np.linalg.eigh(centred.T @ centred)  # ascending
    axes = vectors[:, :-3:-1]
    axes = axes * np.where(axes[np.abs(axes).argmax(axis=0), [0, 1]] < 0, -1, 1)
    if len(filled):
        axes = axes[:, np.argsort(-np.ptp(centred @ axes, axis=0), kind="stable")]
    total = float(values.sum())
    places = {
        k: np.where(level.any(axis=1, keepdims=True), (level - mean) @ axes, np.nan)
        for k, level in centroids.items()
    }
    return places, float(values[-2:].sum()) / total if total > 0 else 0.0
