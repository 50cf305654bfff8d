"""The numbers of an experiment, and its tables as text cells.

Numbers are computed once, as rows. Markdown, the tables of the page and its charts are made of
these rows.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import isnan
from types import MappingProxyType
from typing import NamedTuple

from flows.comparison import (
    Difference,
    Result,
    best_fixed,
    by_setting,
    dominated_by,
    frontier_gap,
    holm,
    mean_and_error,
    paired,
)

NO_PREDICTIONS: Mapping[str, float] = MappingProxyType({})
DOMINATED = (
    "A variant is dominated if a fixed mixture is better on the target and on general text, "
    "both by at least two standard errors."
)


@dataclass(frozen=True)
class VariantRow:
    """A variant with one target and repetition: means over seeds. Losses are in bits per byte."""

    variant: str
    test: Difference
    general: Difference
    from_baseline: Difference | None
    """Difference of the target loss. None: no seed in common."""
    p_value: float
    """Adjusted for the number of variants. NaN if unknown."""
    gap: Difference
    """Distance from the frontier of the fixed mixtures. Its mean is NaN if there is none."""
    from_best: Difference | None
    """Difference of the target loss from the best fixed mixture."""
    epochs_alone: float
    """Epochs of the target's domains in a run on the target's distribution alone."""
    choices: Difference | None
    """Loss of choosing the right answer, in nats per question."""
    accuracy: Difference | None
    """Share of the questions whose right answer is the likeliest."""
    repeats: float
    seconds: float
    """Seconds of a run. Runs at the same time slow each other down."""
    scoring: float
    """Share of the time spent measuring for the mixer."""


@dataclass(frozen=True)
class Setting:
    """A target and a repetition."""

    target: str
    epochs_alone: tuple[float, float]
    """Lowest and highest number of epochs of the target's domains in a run on the target's
    distribution alone."""
    tokens: int
    """Maximum number of tokens of a run."""
    parameters: int
    seeds: list[int]
    best: str | None
    """The best fixed variant."""
    rows: list[VariantRow]


@dataclass(frozen=True)
class SummaryRow:
    """A variant over all settings that it was trained in."""

    variant: str
    from_baseline: Difference | None
    """Mean over settings of the differences of the target loss."""
    predicted: float | None
    """Difference that was expected before the experiment."""
    gap: Difference
    """Mean over runs of the distances from the frontier."""
    dominated: list[str]
    """Settings in which fixed mixtures are better on both losses, with their names."""
    settings: int


@dataclass(frozen=True)
class Comparison:
    """All numbers of an experiment."""

    baseline: str
    settings: list[Setting]
    summary: list[SummaryRow]
    has_predictions: bool


class TextCell(NamedTuple):
    """Text of a cell, and the standard error that follows it."""

    text: str
    error: str = ""

    def __str__(self) -> str:
        return f"{self.text} ± {self.error}" if self.error else self.text


class TextTable(NamedTuple):
    """A table of text. The first cell of a row is the name of a variant."""

    headings: list[str]
    rows: list[list[TextCell]]


def compare(
    results: Sequence[Result], baseline: str, predicted: Mapping[str, float] = NO_PREDICTIONS
) -> Comparison:
    """Return the numbers of an experiment.

    Args:
        results: Results of its runs.
        baseline: Variant that the others are compared with.
        predicted: Expected mean differences of the target loss from the baseline, by variant.
    """
    groups = list(by_setting(results).values())
    return Comparison(
        baseline,
        [_setting(group, baseline) for group in groups],
        [_summary(name, groups, baseline, predicted.get(name)) for name in variants_of(results)],
        bool(predicted),
    )


def variants_of(results: Sequence[Result]) -> list[str]:
    """Return the names of the variants in the order of their first result."""
    return list(dict.fromkeys(result.variant for result in results))


def _setting(results: Sequence[Result], baseline: str) -> Setting:
    names = variants_of(results)
    differences = [paired(results, name, baseline, "test") for name in names]
    adjusted = holm([d.p_value if d else float("nan") for d in differences])
    best = best_fixed(results)
    first = results[0]
    return Setting(
        target=first.target,
        epochs_alone=_range(results),
        tokens=max(r.tokens for r in results),
        parameters=first.parameters,
        seeds=sorted({r.seed for r in results}),
        best=best,
        rows=[
            _variant(name, results, difference, p_value, best)
            for name, difference, p_value in zip(names, differences, adjusted, strict=True)
        ],
    )


def _variant(
    name: str,
    results: Sequence[Result],
    difference: Difference | None,
    p_value: float,
    best: str | None,
) -> VariantRow:
    own = [r for r in results if r.variant == name]
    return VariantRow(
        variant=name,
        test=mean_and_error(r.test for r in own),
        general=mean_and_error(r.general for r in own),
        from_baseline=difference,
        p_value=p_value,
        gap=mean_and_error(_gaps(name, results)),
        from_best=paired(results, name, best, "test") if best else None,
        epochs_alone=mean_and_error(r.epochs_alone for r in own).mean,
        choices=_measured(r.choices for r in own),
        accuracy=_measured(r.accuracy for r in own),
        repeats=mean_and_error(r.repeats for r in own).mean,
        seconds=mean_and_error(r.seconds for r in own).mean,
        scoring=measuring_share(own),
    )


def _measured(values: Iterable[float | None]) -> Difference | None:
    known = [value for value in values if value is not None]
    return mean_and_error(known) if known else None


def _range(results: Sequence[Result]) -> tuple[float, float]:
    """Return the lowest and the highest mean of the variants' epochs.

    If a repetition was asked for, it is that of the first variant. Those that measure take fewer
    steps, and so have slightly less.
    """
    if results[0].epochs is not None:
        return results[0].epochs_alone, results[0].epochs_alone
    means = [
        mean_and_error(r.epochs_alone for r in results if r.variant == name).mean
        for name in variants_of(results)
    ]
    return min(means), max(means)


def epochs_text(epochs: tuple[float, float]) -> str:
    """Return a range of epochs as text, such as `4` or `0.5 to 16`."""
    return " to ".join(dict.fromkeys(f"{each:.3g}" for each in epochs))


def measuring_share(results: Sequence[Result]) -> float:
    """Return the share of the time of some runs that was spent measuring for the mixer."""
    seconds = sum(r.seconds for r in results)
    return sum(r.scoring_seconds for r in results) / seconds if seconds else 0.0


def _gaps(name: str, group: Sequence[Result]) -> list[float]:
    """Return the distance from the frontier of each run of a variant in one setting."""
    return [
        frontier_gap(r, [other for other in group if other.seed == r.seed])
        for r in group
        if r.variant == name
    ]


def _summary(
    name: str, groups: Sequence[Sequence[Result]], baseline: str, predicted: float | None
) -> SummaryRow:
    inside = [group for group in groups if any(r.variant == name for r in group)]
    differences = [d for group in inside if (d := paired(group, name, baseline, "test"))]
    return SummaryRow(
        variant=name,
        from_baseline=mean_and_error(d.mean for d in differences) if differences else None,
        predicted=predicted,
        gap=mean_and_error(gap for group in inside for gap in _gaps(name, group)),
        dominated=[
            f"{group[0].target} at {epochs_text(_range(group))} ({', '.join(by)})"
            for group in inside
            if (by := dominated_by(group, name))
        ],
        settings=len(inside),
    )


def setting_title(setting: Setting) -> str:
    """Return the heading of a setting."""
    epochs = epochs_text(setting.epochs_alone)
    return f"{setting.target}, {epochs} epochs of its domains if drawn alone"


def setting_facts(setting: Setting) -> str:
    """Return a line on the runs of a setting."""
    return (
        f"{setting.tokens / 1e6:.2f} M tokens per run, {setting.parameters:,} parameters, "
        f"seeds {', '.join(map(str, setting.seeds))}. Bits per byte."
    )


def setting_table(setting: Setting, baseline: str) -> TextTable:
    """Return the table of one target and repetition, with a row per variant."""
    differ = " " in epochs_text(setting.epochs_alone)
    asked = any(row.choices for row in setting.rows)
    headings = [
        *("variant", "target", f"− {baseline}", "p (Holm)", "general", "gap to the frontier"),
        f"− best fixed ({setting.best})",
        *(("nats per question", "accuracy") if asked else ()),
        *(("epochs alone",) if differ else ()),
        *("repeats", "seconds", "scoring"),
    ]
    rows = [
        [
            TextCell(row.variant),
            _cell(row.test),
            _cell(row.from_baseline, sign=True),
            TextCell("" if isnan(row.p_value) else f"{row.p_value:.3f}"),
            _cell(row.general),
            _cell(row.gap, sign=True),
            _cell(row.from_best, sign=True),
            *((_cell(row.choices), _cell(row.accuracy)) if asked else ()),
            *((TextCell(f"{row.epochs_alone:.3g}"),) if differ else ()),
            TextCell(f"{row.repeats:.2f}"),
            TextCell(f"{row.seconds:.0f}"),
            TextCell(f"{row.scoring:.0%}"),
        ]
        for row in setting.rows
    ]
    return TextTable(headings, rows)


def overall_table(comparison: Comparison) -> TextTable:
    """Return the table over all targets and repetitions, with a row per variant."""
    predicted = ["predicted"] if comparison.has_predictions else []
    headings = [
        *("variant", f"mean − {comparison.baseline}", *predicted),
        *("mean gap to the frontier", "settings in which it is dominated"),
    ]
    rows = [
        [
            TextCell(row.variant),
            _cell(row.from_baseline, sign=True),
            *(
                [TextCell("" if row.predicted is None else f"{row.predicted:+.4f}")]
                if predicted
                else []
            ),
            _cell(row.gap, sign=True),
            TextCell(
                f"{len(row.dominated)} of {row.settings}{': ' if row.dominated else ''}"
                f"{'; '.join(row.dominated)}"
            ),
        ]
        for row in comparison.summary
    ]
    return TextTable(headings, rows)


def _cell(value: Difference | None, sign: bool = False) -> TextCell:
    if value is None or isnan(value.mean):
        return TextCell("")
    mean = f"{value.mean:+.4f}" if sign else f"{value.mean:.4f}"
    return TextCell(mean, "" if isnan(value.error) else f"{value.error:.4f}")
