"""Weights that are fixed before training, by a rule or by a file."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
from jaxtyping import Float, Int, Shaped

from data_catalog.errors import UserError
from trainer.mixers import MixerState, Observation, uniform_state

WEIGHT_SUM_TOLERANCE = 1e-3  # The weights in a file are often rounded.


class Static:
    """A mixer whose weights stay as they are.

    Natural, uniform, temperature, unimax, importance and file weights are a basis with a single
    row.
    """

    needs: frozenset[str] = frozenset()  # no measurement

    def start(self, basis: int) -> MixerState:
        return uniform_state(basis)

    def propose(self, state: MixerState, seen: Observation) -> MixerState:  # noqa: ARG002 - protocol
        return state


@dataclass(frozen=True)
class FixedWeights:
    """Weights read from a file."""

    by: Literal["domain", "name"]
    """Kind of the keys."""
    weights: Float[np.ndarray, " n"]
    """Weight of every domain, or of every name in the given order. They sum to 1."""


def temperature_weights(
    tokens: Shaped[np.ndarray, " domains"], temperature: float
) -> Float[np.ndarray, " domains"]:
    """Return weights in proportion to `tokens ** (1 / temperature)` (Arivazhagan et al. 2019).

    Temperature 1 gives the natural weights, infinity equal ones. An empty domain has weight 0.

    Args:
        tokens: number of tokens per domain, on any scale.
        temperature: the temperature.

    Raises:
        UserError: All domains are empty.
    """
    if not tokens.any():
        raise UserError(
            'mixture.mixer = "temperature": All domains are empty. Add documents to the catalog.'
        )
    weights = tokens ** (1.0 / temperature)
    return weights / weights.sum()


def unimax_weights(
    sizes: Float[np.ndarray, " domains"],
    sequences: Int[np.ndarray, " domains"],
    draws: int,
    maximum_epochs: float,
) -> Float[np.ndarray, " domains"]:
    """Return equal weights, but none that draws a domain more than `maximum_epochs` times.

    What the capped domains leave is shared equally by the others (Chung et al. 2023, algorithm 1).
    If all domains are capped, the weights are in proportion to their sizes.

    Args:
        sizes: size of each domain, in what weights are shares of: tokens, or sequences.
        sequences: number of available sequences per domain.
        draws: number of sequences that the run draws.
        maximum_epochs: N.

    Raises:
        UserError: All domains are empty.
    """
    if not sequences.any():
        raise UserError(
            'mixture.mixer = "unimax": All domains are empty. Add documents to the catalog.'
        )
    order = np.argsort(sizes, kind="stable")
    # Draws that a size of 1 takes, of each domain and of all that are at least as large.
    each = np.divide(sequences, sizes, out=np.zeros(len(sizes)), where=sizes > 0)
    together = np.cumsum(each[order][::-1])[::-1]
    taken, left = np.zeros(len(sizes)), float(draws)
    for domain, draws_of_one in zip(order.tolist(), together.tolist(), strict=True):
        taken[domain] = min(left / draws_of_one, maximum_epochs * sizes[domain])
        left -= taken[domain] * each[domain]
    return taken / taken.sum()


def read_weights(path: Path, domains: int, names: Sequence[str]) -> FixedWeights:
    """Read weights from a file.

    The file is Parquet or CSV with columns `weight` and either `domain` (a number) or `name`, or a
    JSON object from domains or names to weights. Keys that are all integers are domains. Everything
    that is not listed has weight 0.

    Args:
        path: the file.
        domains: number of domains of the level.
        names: names that can be given weight.

    Raises:
        UserError: The file cannot be read, a key is unknown or repeated, a weight is negative or
            not finite, or the weights do not sum to 1.
    """
    by, keys, weights = _read_json(path) if path.suffix == ".json" else _read_table(path)
    places = (
        _domain_places(path, keys, domains) if by == "domain" else _name_places(path, keys, names)
    )
    if len(set(places)) < len(places):
        twice = next(
            key for key, place in zip(keys, places, strict=True) if places.count(place) > 1
        )
        raise UserError(f"{path}: {by} {twice} is repeated. Give each {by} one weight.")
    for key, weight in zip(keys, weights, strict=True):
        if not (isinstance(weight, int | float) and np.isfinite(weight) and weight >= 0):
            raise UserError(
                f"{path}: The weight of {by} {key} is {weight}. Expected a non-negative number."
            )
    result = np.zeros(domains if by == "domain" else len(names))
    result[places] = weights
    if abs(result.sum() - 1.0) > WEIGHT_SUM_TOLERANCE:
        raise UserError(
            f"{path}: The weights sum to {result.sum():.6g}. Expected 1. Divide them by their sum."
        )
    return FixedWeights(by, result / result.sum())


_WeightColumns = tuple[Literal["domain", "name"], list[Any], list[Any]]


def _read_json(path: Path) -> _WeightColumns:
    expected = "Expected a JSON object of names or domains to weights"
    try:
        tree = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: The file cannot be read ({error}). {expected}.") from error
    if not isinstance(tree, dict) or not tree:
        raise UserError(
            f"{path}: Not a JSON object with keys. {expected}, "
            'such as {"law": 0.5, "natural": 0.5}.'
        )
    if all(key.isdecimal() for key in tree):
        return "domain", [int(key) for key in tree], list(tree.values())
    return "name", list(tree), list(tree.values())


def _read_table(path: Path) -> _WeightColumns:
    try:
        table = pyarrow.csv.read_csv(path) if path.suffix == ".csv" else pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise UserError(
            f"{path}: The file cannot be read ({error}). Expected Parquet, .csv or .json."
        ) from error
    by = [column for column in ("domain", "name") if column in table.column_names]
    if len(by) != 1 or "weight" not in table.column_names:
        raise UserError(
            f"{path}: The columns are {', '.join(table.column_names)}. "
            "Expected weight, and either domain or name."
        )
    return (
        ("domain" if by == ["domain"] else "name"),
        table[by[0]].to_pylist(),
        table["weight"].to_pylist(),
    )


def _domain_places(path: Path, keys: list[Any], domains: int) -> list[int]:
    for key in keys:
        if not isinstance(key, int) or not 0 <= key < domains:
            raise UserError(
                f"{path}: domain {key} is unknown. This level has domains 0 to {domains - 1}."
            )
    return keys


def _name_places(path: Path, keys: list[Any], names: Sequence[str]) -> list[int]:
    places = {name: place for place, name in enumerate(names)}
    for key in keys:
        if str(key) not in places:
            raise UserError(f"{path}: name {key} is unknown. Known names: {', '.join(names)}.")
    return [places[str(key)] for key in keys]
