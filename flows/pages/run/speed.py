"""Throughput of a run, its use of time, and numbers of its optimizer."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from flows.pages.run.run_folder import RunFolder, number
from flows.pages.shared.numbers import json_numbers, thin_points

SPEED_PANELS = {  # key of a record -> title, unit, number format
    "tokens_per_second": ("Tokens per second", "tokens per second", "count"),
    "data_share": ("Time spent waiting for data", "share of the time", "share"),
    "scoring_share": ("Time spent measuring", "share of the time", "share"),
    "mfu": ("Model FLOPs utilisation", "share of peak FLOPs", "share"),
    "loss": ("Training loss on sampled text", "nats per token", "number"),
    "gradient_norm": ("Gradient norm before clipping", "Euclidean norm", "number"),
    "moved": ("Samples redirected by bounds", "share of the samples", "share"),
}


def speed_panels(runs: Sequence[RunFolder]) -> list[dict[str, Any]]:
    """Return one panel per measure, with a curve per run of points [tokens, value]."""
    curves = [_curves(run) for run in runs]
    panels = []
    for key, (title, unit, style) in SPEED_PANELS.items():
        series = [
            {"run": i, "points": json_numbers(thin_points(np.array(found[key])))}
            for i, found in enumerate(curves)
            if found[key]
        ]
        if series and not (
            key == "moved" and all(value == 0 for one in series for _, value in one["points"])
        ):
            panels.append({"title": title, "unit": unit, "style": style, "series": series})
    return panels


def _curves(run: RunFolder) -> dict[str, list[tuple[float, float]]]:
    """Return points (tokens, value) by key of `SPEED_PANELS`.

    Rates that older records lack are computed from the sums of consecutive records.
    """
    found: dict[str, list[tuple[float, float]]] = {key: [] for key in SPEED_PANELS}
    before: tuple[float, ...] = (0.0, 0.0, 0.0, 0.0)
    for record in run.of_kind("train"):
        now = tuple(
            number(record, key) or 0.0
            for key in ("seconds", "tokens", "data_seconds", "scoring_seconds")
        )
        seconds, tokens, waiting, scoring = (a - b for a, b in zip(now, before, strict=True))
        before = now
        rates = {"tokens_per_second": tokens, "data_share": waiting, "scoring_share": scoring}
        for key, curve in found.items():
            value = number(record, key)
            if value is None and key in rates and seconds > 0:
                value = max(rates[key], 0.0) / seconds
            if value is not None:
                curve.append((now[1], value))
    steps, tokens_at = run.progress()
    for record in run.of_kind("bounds"):
        found["moved"].append(
            (float(np.interp(record["step"], steps, tokens_at)), float(record["moved"]))
        )
    return found
