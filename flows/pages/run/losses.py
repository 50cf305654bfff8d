"""Held-out losses: over time, and the last loss of every set."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from flows.pages.run.domains import Domains
from flows.pages.run.run_folder import GENERAL, TEST, VALIDATION, Measurement, RunFolder
from flows.pages.shared.numbers import json_numbers, thin_points

TRAINING_PHASES = 2  # every held-out set is evaluated at the end of each phase
SET_GROUPS = ("Target and general text", "Sets of documents", "Top-level domains", "Questions")
MAXIMUM_LOSS_PANELS = 8  # further sets are only in the table of last losses


def loss_panels(runs: Sequence[RunFolder]) -> list[dict[str, Any]]:
    """Return a panel per target, for general text, and per other set evaluated repeatedly."""
    targets = list(dict.fromkeys(run.target for run in runs))
    panels = []
    for target in targets:
        of_target = [i for i, run in enumerate(runs) if run.target == target]
        title = "Target: held-out text" if len(targets) == 1 else f"Target {target}: held-out text"
        panels.append(loss_panel(runs, of_target, VALIDATION, title))
    panels.append(loss_panel(runs, range(len(runs)), GENERAL, "General: held-out corpus text"))
    for name in dict.fromkeys(name for run in runs for name in run.sets()):
        if name not in (VALIDATION, GENERAL) and any(
            len(run.losses(name)) > TRAINING_PHASES for run in runs
        ):
            panels.append(loss_panel(runs, range(len(runs)), name, name))
    return panels[:MAXIMUM_LOSS_PANELS]


def loss_panel(
    runs: Sequence[RunFolder], chosen: Sequence[int], held_out: str, title: str
) -> dict[str, Any]:
    """Return one curve per run with points [tokens, loss, standard error, bits per byte].

    For a set of questions, the points have accuracies instead of losses. `top` is the upper end of
    the panel in nats and in bits if the first losses are cut off. `boundary` is the number of
    tokens at which fine-tuning began.
    """
    curves = {i: runs[i].losses(held_out) for i in chosen}
    questions = any(point.accuracy is not None for curve in curves.values() for point in curve)
    series = []
    for i, curve in curves.items():
        rows = [
            (p.tokens, p.accuracy, p.accuracy_error, None)
            if questions
            else (p.tokens, p.loss, p.error, p.bits)
            for p in curve
            if not questions or p.accuracy is not None
        ]
        if rows:
            points = thin_points(np.array(rows, float))
            series.append(
                {
                    "run": i,
                    "points": json_numbers(points),
                    "boundary": json_numbers(runs[i].boundary()),
                }
            )
    top = [None, None] if questions else [_top(curves.values(), unit) for unit in ("loss", "bits")]
    return {
        "title": title,
        "unit": "accuracy" if questions else "loss",
        "top": json_numbers(top),
        "series": series,
    }


def _top(curves: Any, unit: str) -> float | None:
    """Return the highest value after the first tenth of the tokens, or None to show all values.

    The initial drop from random weights would flatten the rest of the curve.
    """
    points = [
        [(p.tokens, getattr(p, unit)) for p in curve if getattr(p, unit) is not None]
        for curve in curves
    ]
    last = max((curve[-1][0] for curve in points if curve), default=0.0)
    late = [value for curve in points for tokens, value in curve if tokens >= last / 10]
    everything = [value for curve in points for _, value in curve]
    if min(map(len, filter(None, points)), default=0) < 5 or max(late) >= max(everything):
        return None
    return max(late) + 0.05 * (max(late) - min(late))


@dataclass(frozen=True)
class FinalSet:
    """Last measurement of one held-out set in every run, None if it was not measured."""

    name: str  # in the records
    label: str
    last: tuple[Measurement | None, ...]
    before: tuple[Measurement | None, ...]  # before fine-tuning, for runs that were fine-tuned

    @property
    def group(self) -> str:
        if any(m is not None and m.accuracy is not None for m in self.last):
            return SET_GROUPS[3]
        if self.name == GENERAL or self.name.startswith("target/"):
            return SET_GROUPS[0]
        return SET_GROUPS[2] if self.name.startswith("domain/") else SET_GROUPS[1]


def final_sets(runs: Sequence[RunFolder], domains: Domains | None) -> list[FinalSet]:
    """Return every set that any run evaluated, by group, in the order of the records."""
    several = len({run.target for run in runs}) > 1
    measured = {name for run in runs for name in run.sets()}
    names = dict.fromkeys(
        (TEST, VALIDATION, GENERAL, *(name for run in runs for name in run.sets()))
    )
    keys = dict.fromkeys(
        (name, run.target if several and name.startswith("target/") else None)
        for name in names
        if name in measured
        for run in runs
    )
    found = []
    for name, target in keys:
        label = _label(name, domains) + (f" of {target}" if target else "")
        curves = [run.losses(name) if target in (None, run.target) else [] for run in runs]
        last = tuple(curve[-1] if curve else None for curve in curves)
        if any(last):
            found.append(
                FinalSet(
                    name,
                    label,
                    last,
                    tuple(_before(run, curve) for run, curve in zip(runs, curves, strict=True)),
                )
            )
    return sorted(found, key=lambda s: (SET_GROUPS.index(s.group), _domain(s.name) or 0))


def _before(run: RunFolder, curve: Sequence[Measurement]) -> Measurement | None:
    training = run.count("training", "steps")
    if training is None or run.boundary() is None or not curve or curve[-1].step <= training:
        return None
    return next((point for point in curve if point.step == training), None)


def _domain(name: str) -> int | None:
    number = name.removeprefix("domain/")
    return (
        int(number)
        if number != name and number.isascii() and number.isdecimal() and len(number) < 10
        else None
    )


def _label(name: str, domains: Domains | None) -> str:
    number = _domain(name)
    if number is None:
        return name
    return f"domain {number}" if domains is None else domains.top_name(number, 4)


def final_panels(sets: Sequence[FinalSet], maximum: int = 40) -> list[dict[str, Any]]:
    """Return a panel per group of sets with the last losses as [run, loss, error, bits].

    The set with the highest mean loss comes first. At most `maximum` sets are shown.
    """
    panels = []
    for group in dict.fromkeys(s.group for s in sets if s.group != "Questions"):
        inside = sorted((s for s in sets if s.group == group), key=lambda s: -_mean(s))
        rows = [
            {
                "label": s.label,
                "values": [
                    [i, *json_numbers([m.loss, m.error, m.bits])]
                    for i, m in enumerate(s.last)
                    if m is not None
                ],
            }
            for s in inside[:maximum]
        ]
        panels.append({"title": group, "rows": rows, "left_out": len(inside) - len(rows)})
    return panels


def _mean(s: FinalSet) -> float:
    return math.fsum(m.loss for m in s.last if m is not None) / sum(m is not None for m in s.last)
