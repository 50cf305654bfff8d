"""Sentences of the run page: title, and gain over the baseline."""

import re
import shlex
from collections.abc import Sequence

from flows.pages.run.domains import Domains
from flows.pages.run.gains import (
    BASELINE_MIXER,
    CLEAR_ERRORS,
    Gain,
    comparison_split,
    gains,
    last_loss,
)
from flows.pages.run.run_folder import TEST, VALIDATION, Measurement, RunFolder
from flows.pages.run.summary import summarise
from flows.pages.shared.markup import escape_html, isolated, short_number

MAXIMUM_LISTED = 4  # of targets or catalogs in a title, and of runs in the summary
VISIBLE_DIFFERENCE = 0.0005  # in nats per token. Smaller ones are not visible in what is printed
NUMERALS = ("Two", "Three", "Four", "Five", "Six", "Seven", "Eight", "Nine", "Ten")


def title(runs: Sequence[RunFolder]) -> str:
    """Return the title of the page as plain text: runs, targets and catalogs."""
    catalogs = [catalog_name(run) for run in runs]
    where = _listed("catalog", [name for name in catalogs if name])
    about = f"for {_listed('target', [run.target for run in runs])}" + (
        f" on {where}" if where else ""
    )
    if len(runs) == 1:
        return f"Run {runs[0].label} {about}"
    number_of_runs = NUMERALS[len(runs) - 2] if len(runs) - 2 < len(NUMERALS) else str(len(runs))
    return f"{number_of_runs} runs {about}"


def _listed(noun: str, names: Sequence[str]) -> str:
    """Return a noun with distinct names, such as `targets law and code`, or nothing."""
    distinct = list(dict.fromkeys(names))
    shown = ", ".join(distinct[:MAXIMUM_LISTED]) + (", …" if len(distinct) > MAXIMUM_LISTED else "")
    return f"{noun}{'s' if len(distinct) > 1 else ''} {shown}" if distinct else ""


def catalog_name(run: RunFolder) -> str:
    """Return the last part of the catalog's path, which may be empty."""
    return re.split(r"[/\\]", str(run.config.get("catalog") or "").rstrip("/\\"))[-1]


def subtitle(runs: Sequence[RunFolder], domains: Domains | None) -> str:
    """Return the sizes of the models, of the training and of the catalog as HTML."""
    rows = [summarise(run) for run in runs]
    parts = [
        _range([row["model_parameters"] for row in rows], "parameters"),
        _range([row["tokens"] for row in rows], "training tokens"),
    ]
    if domains is not None:
        filled = int((domains.documents > 0).sum())
        parts.append(
            f"catalog of {short_number(int(domains.tokens.sum()))} training tokens in "
            f"{filled:,} domains"
        )
        if domains.fingerprint:
            parts.append(f"catalog fingerprint {escape_html(domains.fingerprint[:12])}")
    return " · ".join(part for part in parts if part)


def _range(values: Sequence[float | None], noun: str) -> str:
    known = [value for value in values if value]
    if not known:
        return ""
    ends = dict.fromkeys(short_number(value) for value in (min(known), max(known)))
    return f"{' to '.join(ends)} {noun}"


def summary(runs: Sequence[RunFolder]) -> list[str]:
    """Return sentences per target as HTML: whether the mixtures helped."""
    sentences = []
    for target in dict.fromkeys(run.target for run in runs):
        chosen = [run for run in runs if run.target == target]
        compared = gains(chosen)
        sentences += _compared(target, compared) if compared else _alone(target, chosen)
    return sentences


def _compared(target: str, compared: Sequence[Gain]) -> list[str]:
    """Return a sentence on the best run against its baseline, one on the others, and the error."""
    best, *others = compared
    where = f"on {best.split.removeprefix('target/')} text of the target {isolated(target)}"
    found = [f"{_difference(best)} {where}{_levels(best)}. {_certainty(best)}"]
    if others:
        shown = "; ".join(_difference(other) for other in others[:MAXIMUM_LISTED])
        more = (
            f"; {len(others) - MAXIMUM_LISTED} more below" if len(others) > MAXIMUM_LISTED else ""
        )
        found.append(f"{shown}{more}.")
    return found


def _levels(gain: Gain) -> str:
    """Return both losses, unless the difference is a mean over seeds."""
    losses = [last_loss(run, gain.split) for run in (gain.run, gain.other)]
    shown = [f"{point.loss:.3f}" for point in losses if point is not None]
    return f" ({' against '.join(shown)})" if gain.seeds == 1 else ""


def _difference(gain: Gain) -> str:
    names = f"{named(gain.run)} "
    baseline = named(gain.other)
    if abs(gain.value) < VISIBLE_DIFFERENCE:
        return f"{names}has the same loss as {baseline}"
    error = "" if gain.error is None else f" ± {gain.error:.3f}"
    style = ("better" if gain.value > 0 else "worse") if gain.clear else "unclear"
    size = f'<strong class="{style}">{abs(gain.value):.3f}{error} nats per token</strong>'
    side = "lower" if gain.value > 0 else "higher"
    return f"{names}is {size} ({abs(gain.relative):.1%}) {side} than {baseline}"


def named(run: RunFolder) -> str:
    """Return the name of a run as HTML, with its mixer unless the name contains it."""
    mixer = "" if run.mixer in run.label else f" (mixer {isolated(run.mixer)})"
    return f"<strong>{isolated(run.label)}</strong>{mixer}"


def _certainty(gain: Gain) -> str:
    if gain.error is None:
        return "The error of the difference is unknown."
    verdict = (
        f"The difference is larger than {CLEAR_ERRORS} standard errors."
        if gain.clear
        else f"The difference is within {CLEAR_ERRORS} standard errors, so it may be chance."
    )
    if gain.seeds > 1:
        return f"{verdict} It is the mean of {gain.seeds} pairs of runs with the same seed."
    return (
        f"{verdict} The error treats the two losses as independent, because runs do not store "
        "losses per sequence. On the same sequences the true error is usually smaller."
    )


def _alone(target: str, runs: Sequence[RunFolder]) -> list[str]:
    """Return the first and the last loss of a run, and how to compare it."""
    run = next((run for run in runs if run.losses(comparison_split([run]))), None)
    if run is None:
        return [f"No held-out loss on the target {isolated(target)} has been measured yet."]
    points = run.losses(VALIDATION) or run.losses(TEST)
    split = "validation" if run.losses(VALIDATION) else "test"
    end = f"<strong>{_value(points[-1])} nats per token</strong>"
    where = f"on {split} text of the target {isolated(target)}"
    after = f"after {short_number(points[-1].tokens)} tokens"
    tested = last_loss(run, TEST) if split != "test" else None
    more = f" On its test text the loss is {_value(tested)}." if tested else ""
    return [
        f"{named(run)} goes from {_value(points[0])} to {end} {where} {after}.{more}"
        if len(points) > 1
        else f"{named(run)} has a loss of {end} {where} {after}.{more}",
        f"Whether the mixture helped is known only next to a run on {_other_mixture(run)}: "
        f"<code>clustermix report {escape_html(shlex.quote(str(run.folder)))} OTHER_RUN</code>.",
    ]


def _other_mixture(run: RunFolder) -> str:
    if run.mixer == BASELINE_MIXER:
        return "another mixture, for example with <code>--set mixture.mixer=dga</code>"
    return "the corpus as it is (<code>--set mixture.mixer=natural</code>)"


def _value(measurement: Measurement) -> str:
    return f"{measurement.loss:.3f}" + (
        "" if measurement.error is None else f" ± {measurement.error:.3f}"
    )
