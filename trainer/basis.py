"""The basis a run mixes: every mixer's weights are weights on the rows of one matrix."""

from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
from jaxtyping import Int

from data_catalog.errors import UserError
from data_catalog.layout import Layout, Levels
from data_catalog.mixture import Basis, read_distribution, to_leaves
from trainer.config import Mixture

PLAIN = ("natural", "uniform")  # distributions that need no histogram
MOST_BYTES = 4 * 1024**3  # of the matrix


def build_basis(root: Path, levels: Levels, config: Mixture, target: str, sequences: Int[np.ndarray, " leaves"]) -> Basis:
    """Rows over the leaves: one for a static mixer; one a named distribution, or one a domain with sequences, for a learning one.

    Raises:
        UserError: a distribution or level is not in the catalog, or there are too many domains to learn a weight for each.
    """
    level = config.level or levels.leaves
    levels.span(level)
    if config.learns and config.basis == "domains":
        return _domains(levels, level, sequences)
    if config.learns:
        names = config.names or (*_histograms(root, config.kind, level), *PLAIN)
    else:
        names = (target if config.mixer == "importance" else config.mixer,)
    if len(set(names)) < len(names):
        raise UserError(f"mixture.names: {', '.join(names)}: a name is given twice")
    rows = []
    for name in names:
        weights = read_distribution(root, levels, name, None if name in PLAIN else config.kind, level)
        rows.append(to_leaves(weights, levels, level, sequences))
    return Basis(tuple(names), np.stack(rows))


def _histograms(root: Path, kind: str, level: int) -> list[str]:
    table = pq.read_table(Layout(root).distributions)
    found = table.filter((pc.field("kind") == kind) & (pc.field("level") == level))
    return sorted(set(found["name"].to_pylist()))


def _domains(levels: Levels, level: int, sequences: Int[np.ndarray, " leaves"]) -> Basis:
    reachable = np.flatnonzero(sequences.reshape(level, -1).sum(axis=1))
    if len(reachable) * levels.leaves * 8 > MOST_BYTES:
        raise UserError(
            f"mixture.basis = domains at level {level}: {len(reachable)} domains, each of which would need a gradient at every update; "
            'take a coarser level or basis = "distributions"'
        )
    rows = [to_leaves(np.eye(1, level, int(domain))[0], levels, level, sequences) for domain in reachable]
    return Basis(tuple(str(domain) for domain in reachable), np.stack(rows))
