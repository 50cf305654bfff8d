"""Weights that are given before training: by a rule, or by a file."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
from jaxtyping import Float, Shaped

from data_catalog.errors import UserError
from trainer.mixers import MixerState, Observation, uniform_state

WEIGHT_SUM_TOLERANCE = 1e-3  # from 1, that the sum of a file's weights may be: they are often rounded where they are written


class Static:
    needs: frozenset[str] = frozenset()  # no gradient is spent on scores

    def start(self, basis: int) -> MixerState:
        return uniform_state(basis)

    def propose(self, state: MixerState, seen: Observation) -> MixerState:  # noqa: ARG002 - the protocol's
        return state


@dataclass(frozen=True)
class FixedWeights:
    by: Literal["domain", "name"]
    weights: Float[np.ndarray, " n"]  # of all domains, or of all names in their order; sums to 1


def temperature_weights(
    tokens: Shaped[np.ndarray, " domains"], temperature: float
) -> Float[np.ndarray, " domains"]:
    """In proportion to `tokens ** (1 / temperature)`: 1 is natural, infinity even (Arivazhagan et al. 2019). An empty domain has weight 0.

    Args:
        tokens: of each domain, or anything in proportion to them.

    Raises:
        UserError: all domains are empty.
    """
    if not tokens.any():
        raise UserError(
            'mixer = "temperature": every domain is empty; give the catalog more documents'
        )
    weights = tokens ** (1.0 / temperature)
    return weights / weights.sum()


def read_weights(path: Path, domains: int, names: Sequence[str]) -> FixedWeights:
    """The weights in a file: Parquet or CSV with columns `domain` (a number) or `name`, and `weight`; or a JSON object of either to weight.

    What the file does not name has weight 0. Keys of a JSON object are domains if all are whole numbers.

    Args:
        domains: how many the level has: they are numbered from 0.
        names: that may be given weight.

    Raises:
        UserError: the file cannot be read, a weight is negative, not finite, given twice or of something unknown, or the sum is not 1.
    """
    by, keys, weights = _read_json(path) if path.suffix == ".json" else _read_table(path)
    places = (
        _domain_places(path, keys, domains) if by == "domain" else _name_places(path, keys, names)
    )
    if len(set(places)) < len(places):
        twice = next(
            key for key, place in zip(keys, places, strict=True) if places.count(place) > 1
        )
        raise UserError(f"{path}: {by} {twice} is given twice; give each one weight")
    for key, weight in zip(keys, weights, strict=True):
        if not (isinstance(weight, int | float) and np.isfinite(weight) and weight >= 0):
            raise UserError(
                f"{path}: the weight of {by} {key} is {weight}; expected a number of at least 0"
            )
    result = np.zeros(domains if by == "domain" else len(names))
    result[places] = weights
    if abs(result.sum() - 1.0) > WEIGHT_SUM_TOLERANCE:
        raise UserError(
            f"{path}: the weights sum to {result.sum():.6g}, expected 1; divide them by their sum"
        )
    return FixedWeights(by, result / result.sum())


_WeightColumns = tuple[Literal["domain", "name"], list[Any], list[Any]]


def _read_json(path: Path) -> _WeightColumns:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path}: cannot be read ({error}); expected a JSON object of names or domains to weights"
        ) from error
    if not isinstance(found, dict) or not found:
        raise UserError(
            f'{path}: expected a JSON object of names or domains to weights, such as {{"law": 0.5, "natural": 0.5}}'
        )
    if all(key.isdecimal() for key in found):
        return "domain", [int(key) for key in found], list(found.values())
    return "name", list(found), list(found.values())


def _read_table(path: Path) -> _WeightColumns:
    try:
        table = pyarrow.csv.read_csv(path) if path.suffix == ".csv" else pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise UserError(
            f"{path}: cannot be read ({error}); expected Parquet, or .csv, or .json"
        ) from error
    by = [column for column in ("domain", "name") if column in table.column_names]
    if len(by) != 1 or "weight" not in table.column_names:
        raise UserError(
            f"{path}: has columns {', '.join(table.column_names)}; expected weight, and either domain or name"
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
                f"{path}: domain {key} is unknown; this level has domains 0 to {domains - 1}"
            )
    return keys


def _name_places(path: Path, keys: list[Any], names: Sequence[str]) -> list[int]:
    places = {name: place for place, name in enumerate(names)}
    for key in keys:
        if str(key) not in places:
            raise UserError(f"{path}: name {key} is unknown; known are {', '.join(names)}")
    return [places[str(key)] for key in keys]
