"""The content of a run folder as plain values, for finished and unfinished runs."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

VALIDATION, TEST, GENERAL = "target/validation", "target/test", "general"


@dataclass(frozen=True)
class WeightLog:
    """Weights of a run, one row per stage. A stage lasts from one update to the next."""

    first_sequence: Int[np.ndarray, " stages"]
    alpha: Float[np.ndarray, "stages basis"]
    sampling: Float[np.ndarray, "stages basis"]


@dataclass(frozen=True)
class Usage:
    """Number of sampled sequences per leaf."""

    leaf: Int[np.ndarray, " leaves"]
    drawn: Int[np.ndarray, " leaves"]
    sequences: Int[np.ndarray, " leaves"]  # available sequences: one epoch of the leaf


class Measurement(NamedTuple):
    """Evaluation of a held-out set at one step. Values that the record lacks are None."""

    step: int
    tokens: float
    loss: float  # nats per token, or per question for a set of questions
    error: float | None  # standard error of the loss
    bits: float | None  # bits per byte of text
    accuracy: float | None  # of questions
    accuracy_error: float | None


@dataclass(frozen=True)
class RunFolder:
    """The files of a run. Damaged files are left out and described in `damage`."""

    folder: Path
    label: str  # shortest path ending that is distinct among the compared runs
    about: Mapping[str, Any]  # config.json
    weights: WeightLog | None  # None if not written yet
    usage: Usage | None  # None if the run is not finished
    records: tuple[Mapping[str, Any], ...]  # metrics.jsonl
    average_weights: Mapping[str, float]  # weights.json, empty if the run is not finished
    accuracy: Mapping[str, Mapping[str, Any]]  # results per task from accuracy.json
    fault: Mapping[str, Any] | None  # fault.json
    damage: tuple[str, ...] = ()  # sentences

    @property
    def config(self) -> Mapping[str, Any]:
        """The resolved config of the run."""
        return object_at(self.about, "config")

    def setting(self, section: str, key: str) -> Any:
        """Return a value of the config, or None."""
        return object_at(self.config, section).get(key)

    def count(self, section: str, key: str) -> int | None:
        """Return a setting if it is a number of at least 1, else None."""
        found = number(object_at(self.config, section), key)
        return int(found) if found is not None and found >= 1 else None

    @property
    def basis(self) -> tuple[str, ...]:
        """Names of the basis members."""
        names = self.about.get("basis")
        return tuple(map(str, names)) if isinstance(names, list) else ()

    @property
    def level(self) -> int | None:
        """Level of the catalog that the run used."""
        found = number(self.about, "level")
        return int(found) if found is not None else None

    @property
    def mixer(self) -> str:
        """Name of the mixer."""
        return str(self.setting("mixture", "mixer") or "unknown")

    @property
    def target(self) -> str:
        """Name of the target."""
        return str(self.config.get("target", "unknown"))

    @property
    def final(self) -> Mapping[str, Any] | None:
        """The last record of a finished run."""
        return next(
            (record for record in reversed(self.records) if record["kind"] == "final"), None
        )

    def of_kind(self, kind: str) -> list[Mapping[str, Any]]:
        """Return the records of one kind."""
        return [record for record in self.records if record["kind"] == kind]

    def sets(self) -> list[str]:
        """Return the held-out sets in the order of their first evaluation."""
        return list(dict.fromkeys(record["set"] for record in self.of_kind("eval")))

    def losses(self, held_out: str) -> list[Measurement]:
        """Return the evaluations of a held-out set by step, without losses that are not finite."""
        by_step = {}
        for record in self.of_kind("eval"):
            loss = number(record, "loss")
            if record["set"] == held_out and loss is not None:
                others = (
                    number(record, key)
                    for key in ("error", "bits_per_byte", "accuracy", "accuracy_error")
                )
                by_step[int(record["step"])] = Measurement(
                    int(record["step"]), float(record["tokens"]), loss, *others
                )
        return [by_step[step] for step in sorted(by_step)]

    def progress(self) -> tuple[Float[np.ndarray, " records"], Float[np.ndarray, " records"]]:
        """Return steps and the number of training tokens at each step, both starting at 0."""
        known = {
            int(r["step"]): float(r["tokens"])
            for kind in ("train", "eval")
            for r in self.of_kind(kind)
        }
        known = {0: 0.0, **known}
        return np.array(sorted(known), float), np.array([known[step] for step in sorted(known)])

    def boundary(self) -> float | None:
        """Return the number of tokens at which fine-tuning began, or None."""
        first, second = self.count("training", "steps"), self.count("finetune", "steps")
        steps, tokens = self.progress()
        if first is None or second is None or steps[-1] < first:
            return None
        return float(np.interp(first, steps, tokens))


def object_at(tree: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """Return the object under `key`, or an empty one."""
    found = tree.get(key)
    return found if isinstance(found, Mapping) else {}


def number(record: Mapping[str, Any], key: str) -> float | None:
    """Return the finite number under `key`, or None."""
    value = record.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        found = float(value)
    except OverflowError:  # JSON integers have no maximum
        return None
    return found if math.isfinite(found) else None


def member_values(record: Mapping[str, Any], key: str, count: int) -> Float[np.ndarray, " basis"]:
    """Return the list of `count` numbers under `key`, with NaN for missing values."""
    values = record.get(key)
    if not isinstance(values, list) or len(values) != count:
        return np.full(count, np.nan)
    found = (number({"value": value}, "value") for value in values)
    return np.array([math.nan if value is None else value for value in found])
