"""One run's folder as plain values: what its records say, whether it is finished or still being written."""

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
    """A run's weights, one row a stage."""

    first_sequence: Int[np.ndarray, " stages"]
    alpha: Float[np.ndarray, "stages basis"]
    sampling: Float[np.ndarray, "stages basis"]


@dataclass(frozen=True)
class Usage:
    """What was drawn of each leaf, in sequences."""

    leaf: Int[np.ndarray, " leaves"]
    drawn: Int[np.ndarray, " leaves"]
    sequences: Int[np.ndarray, " leaves"]  # that were there to draw: one epoch of the leaf


class Measurement(NamedTuple):
    """A held-out set at one step. What an older or a text-only record does not say is None."""

    step: int
    tokens: float
    loss: float  # nats per token; per question, of a set of questions
    error: float | None  # standard error of the loss
    bits: float | None  # per byte of text
    accuracy: float | None  # of questions
    accuracy_error: float | None


@dataclass(frozen=True)
class RunFolder:
    """One run's folder. Whatever could not be read is absent, and `damage` says so."""

    folder: Path
    label: str  # the shortest end of the path that no other run of the comparison shares
    about: Mapping[str, Any]  # config.json
    weights: WeightLog | None  # None: not written yet
    usage: Usage | None  # None: not finished yet
    records: tuple[Mapping[str, Any], ...]  # metrics.jsonl
    handed_on: Mapping[str, float]  # weights.json; empty: not finished yet
    accuracy: Mapping[str, Mapping[str, Any]]  # accuracy.json: the results by task
    fault: Mapping[str, Any] | None  # fault.json
    damage: tuple[str, ...] = ()  # sentences

    @property
    def config(self) -> Mapping[str, Any]:
        return object_at(self.about, "config")

    def setting(self, section: str, key: str) -> Any:
        """A value of the config; None where this run's has no such key."""
        return object_at(self.config, section).get(key)

    def count(self, section: str, key: str) -> int | None:
        """A setting that is a number above zero."""
        found = number(object_at(self.config, section), key)
        return int(found) if found is not None and found >= 1 else None

    @property
    def basis(self) -> tuple[str, ...]:
        names = self.about.get("basis")
        return tuple(map(str, names)) if isinstance(names, list) else ()

    @property
    def level(self) -> int | None:
        found = number(self.about, "level")
        return int(found) if found is not None else None

    @property
    def mixer(self) -> str:
        return str(self.setting("mixture", "mixer") or "unknown")

    @property
    def target(self) -> str:
        return str(self.config.get("target", "unknown"))

    @property
    def final(self) -> Mapping[str, Any] | None:
        """The record that closes a finished run."""
        return next(
            (record for record in reversed(self.records) if record["kind"] == "final"), None
        )

    def of_kind(self, kind: str) -> list[Mapping[str, Any]]:
        return [record for record in self.records if record["kind"] == kind]

    def sets(self) -> list[str]:
        """The held-out sets that were measured, in the order of the records."""
        return list(dict.fromkeys(record["set"] for record in self.of_kind("eval")))

    def losses(self, held_out: str) -> list[Measurement]:
        """One held-out set, one measurement a step, by step; losses that are not finite are left out."""
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
        """Steps and the training tokens at each, both from 0 on."""
        known = {
            int(r["step"]): float(r["tokens"])
            for kind in ("train", "eval")
            for r in self.of_kind(kind)
        }
        known = {0: 0.0, **known}
        return np.array(sorted(known), float), np.array([known[step] for step in sorted(known)])

    def boundary(self) -> float | None:
        """The training tokens at which fine-tuning began; None for a run that has not come to a second phase."""
        first, second = self.count("training", "steps"), self.count("finetune", "steps")
        steps, tokens = self.progress()
        if first is None or second is None or steps[-1] < first:
            return None
        return float(np.interp(first, steps, tokens))


def object_at(tree: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """The object under `key`; an empty one if there is none."""
    found = tree.get(key)
    return found if isinstance(found, Mapping) else {}


def number(record: Mapping[str, Any], key: str) -> float | None:
    """The finite number under `key`; None where there is none."""
    value = record.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        found = float(value)
    except OverflowError:  # an integer of JSON may have any length
        return None
    return found if math.isfinite(found) else None


def member_values(record: Mapping[str, Any], key: str, count: int) -> Float[np.ndarray, " basis"]:
    """The list of numbers under `key`, one a basis member; NaN for what was not measured, all of them if there is no such list."""
    values = record.get(key)
    if not isinstance(values, list) or len(values) != count:
        return np.full(count, np.nan)
    found = (number({"value": value}, "value") for value in values)
    return np.array([math.nan if value is None else value for value in found])
