"""The map: centroids of the tree in two dimensions."""

from collections.abc import Sequence
from zipfile import BadZipFile

import numpy as np
from jaxtyping import Float

from data_catalog.errors import UserError
from data_catalog.format.files import CatalogFiles
from data_catalog.format.layout import CENTROIDS
from data_catalog.format.manifest import is_inside


def read_centroids(
    files: CatalogFiles, granularities: Sequence[int]
) -> dict[int, Float[np.ndarray, "cells dim"]]:
    """Centroids of these levels only, by granularity: the finest level of a large tree is gigabytes. Zeros: an empty cell.

    Raises:
        UserError: the tree cannot be read, lies outside the catalog, or its centroids are not those of these levels.
    """
    path = files.layout.tree / CENTROIDS
    if not is_inside(files.root, path.relative_to(files.root).as_posix()):
        raise UserError(f"{path}: lies outside the catalog; do not use this catalog")
    found: dict[int, Float[np.ndarray, "cells dim"]] = {}
    try:
        with np.load(path, allow_pickle=False) as arrays:
            for k in granularities:
                found[k] = arrays[str(k)].astype(np.float64)
    except (OSError, ValueError, KeyError, BadZipFile) as error:
        raise UserError(
            f"{path}: no centroids can be read here ({error}); `clustermix verify` tells which files are damaged"
        ) from error
    for k, level in found.items():
        if level.ndim != 2 or len(level) != k or level.shape[1] < 2 or not np.isfinite(level).all():
            raise UserError(
                f"{path}: level {k} has centroids of shape {level.shape}, expected [{k}, dimension] of finite numbers; build it again"
            )
    return found


def project(
    centroids: dict[int, Float[np.ndarray, "cells dim"]],
) -> tuple[dict[int, Float[np.ndarray, "cells 2"]], float]:
    """Places of all centroids on the two principal axes of the finest level's, and the share of these centroids' variance there.

    Empty cells are nan. The axis along which places spread farther is first, to lie along a page's width. An axis points where
    its largest component is positive, so that equal catalogs have equal maps.
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
