"""What a run's folder says: config, weight log, metrics and usage, read from files only, finished or still being written."""

import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float, Int

from data_catalog.errors import UserError

log = logging.getLogger(__name__)

VALIDATION, TEST, GENERAL = "target/validation", "target/test", "general"

# Keys without which a record of metrics.jsonl cannot be used.
NEEDED = {
    "train": ("step", "tokens", "seconds"),
    "eval": ("step", "tokens", "set", "loss"),
    "update": ("step", "stage"),
    "final": ("steps", "tokens", "seconds"),
}


@dataclass(frozen=True)
class WeightLog:
    """A run's weights, one row a stage."""

    first_sequence: Int[np.ndarray, " stages"]
    alpha: Float[np.ndarray, "stages basis"]
    sampling: Float[np.ndarray, "stages basis"]
    last_scores: Float[np.ndarray, " basis"] | None  # null in the log for a static mixer


@dataclass(frozen=True)
class Usage:
    """What was drawn of each leaf, in sequences."""

    leaf: Int[np.ndarray, " leaves"]
    drawn: Int[np.ndarray, " leaves"]
    sequences: Int[np.ndarray, " leaves"]  # one epoch of the leaf


@dataclass(frozen=True)
class Run:
    """One run's folder."""

    folder: Path
    label: str  # the shortest end of the path that no other run of the comparison shares
    about: Mapping[str, Any]  # config.json
    weights: WeightLog | None  # None: not written yet
    usage: Usage | None  # None: not finished yet
    records: tuple[Mapping[str, Any], ...]  # metrics.jsonl
    unreadable: int  # lines of metrics.jsonl that are no record, apart from a half-written last one

    @property
    def config(self) -> Mapping[str, Any]:
        config: Mapping[str, Any] = self.about["config"]
        return config

    @property
    def basis(self) -> tuple[str, ...]:
        return tuple(str(name) for name in self.about.get("basis") or ())

    @property
    def mixer(self) -> str:
        return str((self.config.get("mixture") or {}).get("mixer", "unknown"))

    @property
    def target(self) -> str:
        return str(self.config.get("target", "unknown"))

    @property
    def final(self) -> Mapping[str, Any] | None:
        """The record that closes a finished run."""
        return next((record for record in reversed(self.records) if record["kind"] == "final"), None)

    def of_kind(self, kind: str) -> list[Mapping[str, Any]]:
        return [record for record in self.records if record["kind"] == kind]

    def losses(self, held_out: str) -> list[tuple[float, float]]:
        """(training tokens, loss in nats per token) of one held-out set, by step; not-a-number losses are left out."""
        by_step = {int(r["step"]): (float(r["tokens"]), float(r["loss"])) for r in self.of_kind("eval") if r["set"] == held_out}
        return [by_step[step] for step in sorted(by_step) if math.isfinite(by_step[step][1])]


def read_runs(folders: Sequence[Path]) -> list[Run]:
    """Read each folder.

    Raises:
        UserError: no folder was given, or one holds no run or an unreadable one.
    """
    if not folders:
        raise UserError("no run was given; name at least one run folder, e.g. runs/dga")
    labels = _labels([folder.absolute() for folder in folders])
    return [_read_run(folder, label) for folder, label in zip(folders, labels, strict=True)]


def _labels(folders: Sequence[Path]) -> list[str]:
    """The shortest path endings that tell the folders apart; the same folder twice gets a number."""
    for parts in range(1, max(len(folder.parts) for folder in folders) + 1):
        labels = ["/".join(folder.parts[-parts:]) for folder in folders]
        if len(set(labels)) == len(labels):
            return labels
    return [f"{folder.name} ({i + 1})" for i, folder in enumerate(folders)]


def _read_run(folder: Path, label: str) -> Run:
    try:
        about = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{folder}: no run here (config.json is missing); give the folder that `clustermix train` wrote") from error
    except ValueError as error:
        raise UserError(f"{folder}/config.json: not valid JSON ({error}); the run must be started again") from error
    if not isinstance(about, dict) or not isinstance(about.get("config"), dict):
        raise UserError(f"{folder}/config.json: expected an object with the key `config`; this is not a run's folder")
    records, unreadable = _read_metrics(folder / "metrics.jsonl")
    if unreadable:
        log.warning("%s: %d lines of metrics.jsonl are not records and were left out", folder, unreadable)
    names = about.get("basis") or ()
    return Run(
        folder,
        label,
        about,
        _read_weights(folder / "weights.parquet", len(names)),
        _read_usage(folder / "usage.parquet"),
        records,
        unreadable,
    )


def _read_metrics(path: Path) -> tuple[tuple[Mapping[str, Any], ...], int]:
    """The records, and how many lines are none. A last line without its newline may still be being written: it is not counted."""
    if not path.is_file():
        return (), 0
    *lines, last = path.read_text(encoding="utf-8", errors="replace").split("\n")
    parsed = [_record(line) for line in lines if line.strip()]
    records = [record for record in (*parsed, _record(last)) if record is not None]
    return tuple(records), parsed.count(None)


def _record(line: str) -> Mapping[str, Any] | None:
    try:
        record = json.loads(line)
    except ValueError:
        return None
    if not isinstance(record, dict) or any(record.get(key) is None for key in NEEDED.get(str(record.get("kind")), ())):
        return None
    return record if "kind" in record else None


def _read_table(path: Path, columns: list[str]) -> pa.Table | None:
    if not path.is_file():
        return None
    try:
        return pq.read_table(path, columns=columns)
    except (pa.ArrowException, OSError) as error:
        raise UserError(
            f"{path}: expected a Parquet file with the columns {columns}, found {error}; delete the run and start it again"
        ) from error


def _read_weights(path: Path, basis: int) -> WeightLog | None:
    table = _read_table(path, ["first_sequence", "alpha", "sampling", "scores"])
    if table is None or not table.num_rows:
        return None
    alpha, sampling = (table[name].to_pylist() for name in ("alpha", "sampling"))
    if any(len(row) != basis for row in (*alpha, *sampling)):
        raise UserError(f"{path}: a row has {len(sampling[0])} weights, config.json names a basis of {basis}; they are from different runs")
    scores = [row for row in table["scores"].to_pylist() if row is not None]
    return WeightLog(
        table["first_sequence"].to_numpy(),
        np.array(alpha, float),
        np.array(sampling, float),
        np.array(scores[-1], float) if scores else None,
    )


def _read_usage(path: Path) -> Usage | None:
    table = _read_table(path, ["leaf", "drawn_sequences", "sequences"])
    return None if table is None else Usage(*(table[name].to_numpy().astype(np.int64) for name in ("leaf", "drawn_sequences", "sequences")))


def summary_table(runs: Sequence[Path]) -> list[dict[str, Any]]:
    """One row a run: the numbers of the report's first table, for a terminal or a benchmark.

    Keys: run, mixer, target, finished, steps, tokens, target_validation_loss, target_test_loss, general_loss (nats per
    token, the last measured), repeats (drawn sequences by distinct ones), seconds, scoring_share, data_share (of the
    seconds), model_parameters. A value that the run has not written yet is None.

    Raises:
        UserError: as `read_runs`.
    """
    return [summarise(run) for run in read_runs(runs)]


def summarise(run: Run) -> dict[str, Any]:
    """The row of one run in `summary_table`."""
    last = {**(run.of_kind("train") or [{}])[-1], **(run.final or {})}
    seconds = last.get("seconds")

    def loss(held_out: str) -> float | None:
        points = run.losses(held_out)
        return points[-1][1] if points else None

    def share(key: str) -> float | None:
        return last[key] / seconds if seconds and last.get(key) is not None else None

    return {
        "run": run.label,
        "mixer": run.mixer,
        "target": run.target,
        "finished": run.final is not None,
        "steps": last.get("steps", last.get("step")),
        "tokens": last.get("tokens"),
        "target_validation_loss": loss(VALIDATION),
        "target_test_loss": loss(TEST),
        "general_loss": loss(GENERAL),
        "repeats": last.get("repeats") or _repeats(run.usage),
        "seconds": seconds,
        "scoring_share": share("scoring_seconds"),
        "data_share": share("data_seconds"),
        "model_parameters": last.get("model_parameters"),
    }


def _repeats(usage: Usage | None) -> float | None:
    """Drawn sequences by distinct drawn ones: a leaf shows each of its sequences once before any a second time."""
    if usage is None or not usage.drawn.sum():
        return None
    return float(usage.drawn.sum() / np.minimum(usage.drawn, usage.sequences).sum())
