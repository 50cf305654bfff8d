"""Distributions over domains and over the leaves of the tree."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Float, Num

from data_catalog.errors import UserError, suggestion
from data_catalog.format import tables
from data_catalog.format.damage import require
from data_catalog.format.files import CatalogFiles
from data_catalog.format.layout import Levels


@dataclass(frozen=True)
class Basis:
    """Named distributions over leaves. Row i of `matrix` sums to 1."""

    names: tuple[str, ...]
    matrix: Float[np.ndarray, "basis leaves"]


def read_distributions(files: CatalogFiles) -> pa.Table:
    """Return all stored distributions of a catalog (`tables.DISTRIBUTIONS`).

    Raises:
        DamagedFileError: The table cannot be read, or has impossible values.
    """
    path = files.layout.distributions
    table = files.read_table(path, tables.DISTRIBUTIONS)
    require(path, not any(column.null_count for column in table.columns), "a value is missing")
    domain, level, weight = (table[name].to_numpy() for name in ("domain", "level", "weight"))
    require(
        path, bool(((domain >= 0) & (domain < level)).all()), "a domain is not one of its level"
    )
    require(
        path, bool((np.isfinite(weight) & (weight >= 0)).all()), "a weight is not a number >= 0"
    )
    return table


def read_distribution(
    files: CatalogFiles, name: str, kind: str | None, level: int
) -> Float[np.ndarray, " domains"]:
    """Read one stored distribution over the domains of one level.

    Args:
        kind: "hard" or "distance". None for `natural` and `uniform`, which have one kind.

    Raises:
        DamagedFileError: See `read_distributions`.
        UserError: The catalog has no such level or no such distribution.
    """
    files.levels.span(level)  # raises an error for a level that the tree lacks
    table = read_distributions(files)
    wanted = (pc.field("name") == name) & (pc.field("level") == level)
    rows = table.filter(wanted if kind is None else wanted & (pc.field("kind") == kind))
    if not rows.num_rows:
        alike = table.filter((pc.field("level") == level) & (pc.field("kind") == (kind or name)))
        known = sorted(set(alike["name"].to_pylist()))
        asked = f"{name} ({kind})" if kind else name
        raise UserError(
            f"distribution {asked} at level {level}: not in {files.root}. "
            f"{suggestion(name, known, 'Its distributions')}"
        )
    weights = np.zeros(level)
    weights[rows["domain"].to_numpy()] = rows["weight"].to_numpy()
    return weights


def to_leaves(
    weights: Float[np.ndarray, " domains"],
    levels: Levels,
    level: int,
    sizes: Num[np.ndarray, " leaves"],
    name: str = "distribution",
) -> Float[np.ndarray, " leaves"]:
    """Distribute each domain's weight over its leaves, in proportion to their sizes.

    The result sums to 1. The weight of empty domains is shared by the others.

    Args:
        weights: weight of each domain.
        levels: granularities of the catalog's domains.
        level: number of domains.
        sizes: number of tokens or of sequences of each leaf, 0 for a leaf without sequences.
        name: name of the distribution, for the error.

    Raises:
        UserError: No domain with weight has a sequence.
    """
    span = levels.span(level)
    inside = sizes.reshape(level, span).astype(np.float64)
    totals = inside.sum(axis=1)
    reachable = np.where(totals > 0, weights, 0.0)
    if reachable.sum() <= 0:
        raise UserError(
            f"{name} at level {level}: only domains without training sequences have weight. "
            "Use a coarser level or more data."
        )
    share = inside / np.maximum(totals, 1)[:, None]
    leaves: Float[np.ndarray, " leaves"] = ((reachable / reachable.sum())[:, None] * share).reshape(
        -1
    )
    return leaves


def effective_number(weights: Float[np.ndarray, " n"]) -> float:
    """Return exp of the entropy: the number of equal weights with the same entropy."""
    positive = weights[weights > 0]
    return float(np.exp(-(positive * np.log(positive)).sum()))
