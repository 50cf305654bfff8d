"""Weights over time, and the scores and losses of the basis members."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from data_catalog.format.distributions import effective_number
from flows.pages.run.domains import Domains
from flows.pages.run.mixture import is_over_domains, member_label, mixed
from flows.pages.run.run_folder import RunFolder, WeightLog, member_values
from flows.pages.shared.numbers import json_numbers, spread_indices
from trainer.mixture_config import ALIGNING

MAXIMUM_BANDS = 7  # of a stacked chart, without the sum of the other members
MAXIMUM_HEAT_ROWS = 32
MAXIMUM_HEAT_COLUMNS = 160
SCORE_UNITS = {  # by kind of scores
    "clipped": "dot product of the clipped gradients",
    "cosine": "cosine of the gradients",
}
DEFAULT_SCORE_UNIT = "dot product of the gradients"
NO_ERRORS_CAPTION = (
    "Clipped and cosine scores have no standard errors because they depend on the norms of whole "
    "gradients. Normalised and raw scores have standard errors."
)


def weights_charts(runs: Sequence[RunFolder], domains: Domains | None) -> list[dict[str, Any]]:
    """Return a chart per run with several basis members.

    Runs with the same basis are next to each other and use the same colours.
    """
    groups: dict[tuple[str, ...], list[tuple[int, WeightLog]]] = {}
    for i, run in enumerate(runs):
        if len(run.basis) > 1 and run.weights is not None:
            groups.setdefault(run.basis, []).append((i, run.weights))
    charts = []
    for group in groups.values():
        shown = _largest([log for _, log in group])
        charts += [{"index": i} | weights_chart(runs[i], log, shown, domains) for i, log in group]
    return charts


def weights_chart(
    run: RunFolder, log: WeightLog, shown: Sequence[int], domains: Domains | None
) -> dict[str, Any]:
    """Return the sampling weights per stage: members `shown` as bands, and the sum of the others.

    Weights are constant within a stage, so the chart is a step function.
    """
    rest = np.setdiff1d(np.arange(len(run.basis)), shown)
    stages = spread_indices(len(log.sampling))
    starts, end, axis = _positions(run, log)

    def bands(weights: Float[np.ndarray, "stages basis"]) -> list[Any]:
        columns = [weights[stages, member] for member in shown]
        return [
            json_numbers(column)
            for column in (*columns, *([weights[stages][:, rest].sum(axis=1)] if len(rest) else []))
        ]

    others = (
        [f"{len(rest)} others"]
        if len(rest) > 1
        else [member_label(run, int(i), domains) for i in rest]
    )
    alike = (
        domains is not None and is_over_domains(run) and run.level == domains.level
    )  # members are domains: a second curve would be the same
    wanted = None if domains is None or alike else mixed(run, log.sampling[stages], domains)
    return {
        "run": run.label,
        "axis": axis,
        "starts": json_numbers(starts[stages]),
        "end": json_numbers(end),
        "names": [*(member_label(run, i, domains) for i in shown), *others],
        "others": len(rest) > 0,
        "sampling": bands(log.sampling),
        "alpha": bands(log.alpha),
        "effective": json_numbers([effective_number(row) for row in log.sampling[stages]]),
        "effective_domains": None
        if wanted is None
        else json_numbers([effective_number(row) for row in wanted]),
        "members": len(run.basis),
        "heat": heat_map(run, log, domains) if len(rest) > 1 else None,
        "measured": measured(run, shown),
        "no_errors": NO_ERRORS_CAPTION
        if run.mixer in ALIGNING and run.setting("mixture", "scores") in ("clipped", "cosine")
        else None,
    }


def heat_map(run: RunFolder, log: WeightLog, domains: Domains | None) -> dict[str, Any]:
    """Return the sampling weights of the largest members.

    There is a row per member, largest last weight first, and a column per stage.
    """
    stages = spread_indices(len(log.sampling), MAXIMUM_HEAT_COLUMNS)
    starts, end, axis = _positions(run, log)
    size = np.maximum(log.sampling.max(axis=0), 0)
    kept = np.argsort(-size, kind="stable")[:MAXIMUM_HEAT_ROWS]
    rows = sorted(kept.tolist(), key=lambda i: (-log.sampling[-1][i], i))
    return {
        "axis": axis,
        "starts": json_numbers(starts[stages]),
        "end": json_numbers(end),
        "names": [member_label(run, i, domains) for i in rows],
        "rows": json_numbers(log.sampling[stages][:, rows].T, digits=3),
        "left_out": len(run.basis) - len(rows),
    }


def measured(run: RunFolder, shown: Sequence[int]) -> list[dict[str, Any]]:
    """Return the scores and losses of the members `shown` at every update, with standard errors."""
    updates = sorted(run.of_kind("update"), key=lambda record: float(record["step"]))
    if not updates:
        return []
    updates = [updates[i] for i in spread_indices(len(updates))]
    count = len(run.basis)
    steps, tokens = run.progress()
    at = np.interp([float(record["step"]) for record in updates], steps, tokens)
    errors = np.stack([member_values(record, "errors", count) for record in updates])
    panels = []
    for key, title in (("scores", "Scores"), ("losses", "Losses of the members")):
        values = np.stack([member_values(record, key, count) for record in updates])
        if not np.isfinite(values).any():
            continue  # not measured by this mixer
        series = [
            [json_numbers(values[:, i]), json_numbers(errors[:, i]) if key == "scores" else None]
            for i in shown
        ]
        unit = "nats per token" if key == "losses" else _unit(run)
        panels.append({"title": title, "unit": unit, "tokens": json_numbers(at), "series": series})
    return panels


def _unit(run: RunFolder) -> str:
    """Return the unit of the run's scores."""
    if run.mixer not in ALIGNING:
        return "score"
    return SCORE_UNITS.get(str(run.setting("mixture", "scores")), DEFAULT_SCORE_UNIT)


def _largest(logs: Sequence[WeightLog]) -> list[int]:
    """Return the members with the largest mean or last weight in any run of the group.

    They are ordered by the last weight of the first run.
    """
    size = np.max([np.maximum(log.sampling.mean(axis=0), log.sampling[-1]) for log in logs], axis=0)
    kept = np.argsort(-size, kind="stable")[:MAXIMUM_BANDS]
    return [int(i) for i in sorted(kept, key=lambda i: (-logs[0].sampling[-1][i], i))]


def _positions(run: RunFolder, log: WeightLog) -> tuple[Float[np.ndarray, " stages"], float, str]:
    """Return the start of each stage, the end of the last one, and the title of the axis.

    Positions are in tokens, or in sequences if the tokens are unknown.
    """
    first = log.first_sequence.astype(float)
    batch = run.count("training", "batch_sequences")
    steps, tokens = run.progress()
    if not batch or len(steps) < 2:
        return first, float(first[-1] + max(np.diff(first, append=first[-1]).max(), 1)), "sequences"
    end = run.boundary()  # fine-tuning does not sample by weights
    return (
        np.interp(first / batch, steps, tokens),
        float(tokens[-1] if end is None else end),
        "training tokens",
    )
