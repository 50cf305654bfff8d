"""The basis of a run: a matrix of distributions over leaves, which the mixer weighs."""

from pathlib import Path

import numpy as np
import pyarrow.compute as pc
from jaxtyping import Float, Int

from data_catalog.errors import UserError
from data_catalog.format.distributions import (
    Basis,
    read_distribution,
    read_distributions,
    to_leaves,
)
from data_catalog.format.files import CatalogFiles
from data_catalog.format.layout import Levels
from data_catalog.format.run_record import RUN_RECORD, read_run_record
from data_catalog.settings import parse
from trainer.mixers.fixed import read_weights, temperature_weights, unimax_weights
from trainer.mixers.prior import automatic_share, wanted_shares
from trainer.mixture_config import Mixture
from trainer.sampling.fill import Fill

BUILT_IN_DISTRIBUTIONS = ("natural", "uniform")  # distributions that need no histogram
MAXIMUM_BASIS_BYTES = 4 * 1024**3


def build_basis(
    files: CatalogFiles,
    config: Mixture,
    target: str,
    sequences: Int[np.ndarray, " leaves"],
    fill: Fill,
    draws: int,
) -> Basis:
    """Return the basis: `(members, leaves)` float64, each row summing to 1.

    Rows are weights: shares of tokens, or of sequences, as `fill` says.

    A mixer that does not learn has one row. A mixer that learns has a row per named distribution,
    or per domain that has sequences.

    Args:
        files: the open catalog.
        config: the mixture settings.
        target: name of the run's target.
        sequences: number of available sequences per leaf.
        fill: fill of the sequences.
        draws: number of sequences that the run draws.

    Raises:
        UserError: A distribution or level is not in the catalog, a file of weights does not fit, or
            there are too many domains to learn a weight for each.
    """
    if config.mixer == "replay":
        config, target, tokens = _replayed(config.file or Path())
        draws = tokens // files.sequence_tokens
    levels = files.levels
    level = config.level or levels.leaves
    levels.span(level)
    sizes = fill.sizes(sequences)
    if config.learns and config.basis == "domains":
        return _domains(levels, level, sizes)

    def read(name: str) -> Float[np.ndarray, " domains"]:
        return read_distribution(
            files, name, None if name in BUILT_IN_DISTRIBUTIONS else config.kind, level
        )

    every = (*_histograms(files, config.kind, level), *BUILT_IN_DISTRIBUTIONS)
    rows: dict[str, Float[np.ndarray, " domains"]]
    if config.learns:
        names = config.names or every
        if len(set(names)) < len(names):
            raise UserError(
                f"mixture.names: A name is repeated: {', '.join(names)}. List each name once."
            )
        if config.has_target_prior:
            started_from = wanted_shares(config.target_shares(target), 1.0)
            names = tuple(dict.fromkeys((*names, *started_from)))
        rows = {name: read(name) for name in names}
    elif config.mixer == "temperature":
        rows = {"temperature": temperature_weights(read("natural"), config.temperature)}
    elif config.mixer == "unimax":
        size, count = (values.reshape(level, -1).sum(axis=1) for values in (sizes, sequences))
        rows = {"unimax": unimax_weights(size, count, draws, config.maximum_epochs)}
    elif config.mixer == "static" and config.target_share is not None:
        targets = config.target_shares(target)

        def mixed(share: float) -> Float[np.ndarray, " domains"]:
            wanted = wanted_shares(targets, share)
            return np.asarray(sum(part * read(name) for name, part in wanted.items()))

        share = config.target_share
        if share == "auto":
            alone = to_leaves(mixed(1.0), levels, level, sizes, "distributions of the targets")
            share = automatic_share(fill.draws(alone), sequences, draws)
        rows = {"static": mixed(share)}
    elif config.mixer == "static":
        given = read_weights(config.file or Path(), level, every)
        weights = (
            given.weights
            if given.by == "domain"
            else sum(w * read(n) for w, n in zip(given.weights, every, strict=True) if w > 0)
        )
        rows = {"static": np.asarray(weights)}
    else:
        name = target if config.mixer == "importance" else config.mixer
        rows = {name: read(name)}
    return Basis(
        tuple(rows),
        np.stack(
            [
                to_leaves(weights, levels, level, sizes, f"distribution {name}")
                for name, weights in rows.items()
            ]
        ),
    )


def _replayed(place: Path) -> tuple[Mixture, str, int]:
    """Return the mixture, the target and the tokens, padding included, of the replayed run."""
    run = place if place.is_dir() else place.parent
    config = read_run_record(run).config
    mixture = parse(Mixture, config.mixture.model_dump(), f"{run / RUN_RECORD}: config.mixture")
    if mixture.mixer == "replay" and mixture.file:
        return _replayed(mixture.file)
    training = config.training
    tokens = training.steps * training.batch_sequences * training.sequence_tokens
    return mixture, config.target, tokens


def _histograms(files: CatalogFiles, kind: str, level: int) -> list[str]:
    table = read_distributions(files)
    rows = table.filter((pc.field("kind") == kind) & (pc.field("level") == level))
    return sorted(set(rows["name"].to_pylist()))


def _domains(levels: Levels, level: int, sizes: Float[np.ndarray, " leaves"]) -> Basis:
    reachable = np.flatnonzero(sizes.reshape(level, -1).sum(axis=1))
    if len(reachable) * levels.leaves * 8 > MAXIMUM_BASIS_BYTES:
        raise UserError(
            f"mixture.level {level}: {len(reachable)} domains are too many to learn a weight for "
            "each, because every update takes a gradient per domain. Choose a coarser "
            'mixture.level, or mixture.basis = "distributions".'
        )
    rows = [
        to_leaves(np.eye(1, level, int(domain))[0], levels, level, sizes) for domain in reachable
    ]
    return Basis(tuple(str(domain) for domain in reachable), np.stack(rows))
