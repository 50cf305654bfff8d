"""The numbers of an experiment, and its tables as text cells.

Numbers are computed once, as rows. Markdown, the tables of the page and its charts are made of
these rows.
"""

from collections.abc import Mapping, Sequence
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
    repeats: float
    scoring: float
    """Share of the time spent measuring for the mixer."""


@dataclass(frozen=True)
class Setting:
    """A target and a repetition."""

    target: str
    epochs_alone: float
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
        epochs_alone=first.epochs_alone,
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
        repeats=mean_and_error(r.repeats for r in own).mean,
        scoring=measuring_share(own),
    )


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
            f"{group[0].target} at {group[0].epochs_alone:.3g} ({', '.join(by)})"
            for group in inside
            if (by := dominated_by(group, name))
        ],
        settings=len(inside),
    )


def setting_title(setting: Setting) -> str:
    """Return the heading of a setting."""
    return f"{setting.target}, {setting.epochs_alone:.3g} epochs of its domains if drawn alone"


def setting_facts(setting: Setting) -> str:
    """Return a line on the runs of a setting."""
    return (
        f"{setting.tokens / 1e6:.2f} M tokens per run, {setting.parameters:,} parameters, "
        f"seeds {', '.join(map(str, setting.seeds))}. Bits per byte."
    )


def setting_table(setting: Setting, baseline: str) -> TextTable:
    """Return the table of one target and repetition, with a row per variant."""
    headings = [
        *("variant", "target", f"− {baseline}", "p (Holm)", "general", "gap to the frontier"),
        *(f"− best fixed ({setting.best})", "repeats", "scoring"),
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
            TextCell(f"{row.repeats:.2f}"),
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
