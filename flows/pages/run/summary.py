"""Numbers of a comparison: one row per run, and means over runs that differ only in seed."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from flows.pages.run.data import read_runs
from flows.pages.run.run_folder import GENERAL, TEST, VALIDATION, RunFolder, Usage, number

SEED_GROUP_IGNORED_KEYS = ("seed", "out", "checkpoint")  # may differ within a group of seeds


def summary_table(runs: Sequence[Path]) -> list[dict[str, Any]]:
    """Return one row per run with the numbers of the first table of the run page.

    Keys: run, mixer, target, finished, steps, tokens, target_validation_loss, target_test_loss,
    general_loss (last values, in nats per token), repeats (sampled sequences divided by distinct
    ones), seconds, scoring_share and data_share (of the seconds), model_parameters. Values that the
    run has not written yet are None.

    Args:
        runs: Folders of runs.

    Raises:
        UserError: No folder was given, or a folder contains no run.
    """
    return [summarise(run) for run in read_runs(runs)]


def summarise(run: RunFolder) -> dict[str, Any]:
    """Return the row of one run for `summary_table`."""
    last = {**(run.of_kind("train") or [{}])[-1], **(run.final or {})}
    seconds = number(last, "seconds")

    def loss(held_out: str) -> float | None:
        points = run.losses(held_out)
        return points[-1].loss if points else None

    def share(key: str) -> float | None:
        spent = number(last, key)
        return spent / seconds if seconds and spent is not None else None

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
        "repeats": number(last, "repeats") or _repeats(run.usage),
        "seconds": seconds,
        "scoring_share": share("scoring_seconds"),
        "data_share": share("data_seconds"),
        "model_parameters": number(last, "model_parameters"),
    }


def _repeats(usage: Usage | None) -> float | None:
    """Return sampled sequences divided by distinct ones.

    Sequences of a leaf are sampled without replacement until all of them were used.
    """
    if usage is None or not usage.drawn.sum():
        return None
    return float(usage.drawn.sum() / max(np.minimum(usage.drawn, usage.sequences).sum(), 1))


@dataclass(frozen=True)
class SeedGroup:
    """Finished runs that differ only in seed, with means and their standard errors."""

    mixer: str
    target: str
    labels: tuple[str, ...]
    # By key of `summary_table`. None if a run lacks the number.
    means: dict[str, tuple[float, float] | None]


def seed_groups(runs: Sequence[RunFolder]) -> list[SeedGroup]:
    """Return the groups of two or more runs that differ only in seed."""
    groups: dict[str, dict[str, RunFolder]] = {}
    for run in runs:
        if (key := _alike(run)) is not None:
            groups.setdefault(key, {})[_seed(run)] = run
    return [_seed_group(list(group.values())) for group in groups.values() if len(group) > 1]


def seeds_of(run: RunFolder, runs: Sequence[RunFolder]) -> dict[str, RunFolder]:
    """Return the finished runs that differ from `run` only in seed, itself included, by seed."""
    key = _alike(run)
    return {} if key is None else {_seed(one): one for one in runs if _alike(one) == key}


def _alike(run: RunFolder) -> str | None:
    """Return a key that runs of one group of seeds share. None for unfinished runs."""
    if run.final is None or not run.config:
        return None
    settings = {
        name: value for name, value in run.config.items() if name not in SEED_GROUP_IGNORED_KEYS
    }
    return json.dumps([settings, run.about.get("catalog")], sort_keys=True)


def _seed(run: RunFolder) -> str:
    return json.dumps(run.config.get("seed"))


def _seed_group(runs: Sequence[RunFolder]) -> SeedGroup:
    rows = [summarise(run) for run in runs]
    means: dict[str, tuple[float, float] | None] = {}
    for key in ("target_validation_loss", "target_test_loss", "general_loss", "repeats"):
        values = [row[key] for row in rows if row[key] is not None]
        whole = len(values) == len(rows)
        means[key] = (
            (float(np.mean(values)), float(np.std(values, ddof=1) / len(values) ** 0.5))
            if whole
            else None
        )
    return SeedGroup(runs[0].mixer, runs[0].target, tuple(run.label for run in runs), means)
