"""Data of the charts, as plain values that become JSON."""

from collections.abc import Mapping, Sequence
from typing import Any

from flows.comparison import Difference, undominated
from flows.experiment_tables import (
    Comparison,
    Setting,
    epochs_text,
    overall_table,
    setting_table,
)
from flows.pages.experiment.marks import VariantMark
from flows.pages.experiment.tables import FROM_BASELINE, by_variant, setting_anchor
from flows.pages.shared.numbers import json_numbers


def experiment_page_data(comparison: Comparison, marks: Sequence[VariantMark]) -> dict[str, Any]:
    """Return the data of the page's scripts.

    A point has the index of its variant, general loss, its standard error, target loss, its
    standard error, and the text of its row in the table. Unknown errors are None.
    """
    index = {mark.variant: i for i, mark in enumerate(marks)}
    return {
        "baseline": index.get(comparison.baseline),
        "variants": [
            {"name": mark.variant, "role": mark.role, "colour": mark.colour, "path": mark.path}
            for mark in marks
        ],
        "differences": _differences(comparison, index),
        "settings": [
            _panel(setting, comparison.baseline, index, by_variant(marks))
            | {"anchor": setting_anchor(number)}
            for number, setting in enumerate(comparison.settings)
        ],
    }


def _differences(comparison: Comparison, index: Mapping[str, int]) -> list[dict[str, Any]]:
    """Return the differences from the baseline in the order of the marks, without its own.

    A setting has its index, the difference and its text.
    """
    tables = [setting_table(setting, comparison.baseline) for setting in comparison.settings]
    rows = [
        {
            "variant": index[row.variant],
            **_numbers(row.from_baseline),
            "predicted": json_numbers(row.predicted),
            "texts": [str(cell) for cell in cells[1:3]],
            "settings": [
                [number, json_numbers(of.from_baseline.mean), str(line[FROM_BASELINE])]
                for number, setting in enumerate(comparison.settings)
                for of, line in zip(setting.rows, tables[number].rows, strict=True)
                if of.variant == row.variant and of.from_baseline is not None
            ],
        }
        for row, cells in zip(comparison.summary, overall_table(comparison).rows, strict=True)
        if row.from_baseline is not None and row.variant != comparison.baseline
    ]
    return sorted(rows, key=lambda row: row["variant"])


def _numbers(value: Difference) -> dict[str, Any]:
    return {"mean": json_numbers(value.mean), "error": json_numbers(value.error)}


def _panel(
    setting: Setting, baseline: str, index: Mapping[str, int], marks: Mapping[str, VariantMark]
) -> dict[str, Any]:
    table = setting_table(setting, baseline)
    points = [
        [
            index[row.variant],
            *json_numbers([row.general.mean, row.general.error, row.test.mean, row.test.error]),
            [str(cell) for cell in cells[1:]],
        ]
        for row, cells in zip(setting.rows, table.rows, strict=True)
    ]
    frontier = undominated(
        (row.general.mean, row.test.mean)
        for row in setting.rows
        if marks[row.variant].role == "fixed"
    )
    return {
        "target": setting.target,
        "epochs": epochs_text(setting.epochs_alone),
        "columns": table.headings[1:],
        "points": points,
        "frontier": json_numbers(frontier),
    }
