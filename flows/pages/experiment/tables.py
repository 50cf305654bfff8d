"""Tables of the experiment page: all settings together, each setting, and cost."""

from collections.abc import Mapping, Sequence

from flows.comparison import Result
from flows.experiment_tables import (
    Comparison,
    TextCell,
    TextTable,
    measuring_share,
    overall_table,
    setting_facts,
    setting_table,
    setting_title,
)
from flows.pages.experiment.marks import VariantMark, marked_name
from flows.pages.shared.markup import Cell, escape_html, html_table, isolated, percent, short_number

Marks = Mapping[str, VariantMark]
TARGET, FROM_BASELINE, GENERAL = 1, 2, 4  # columns in the table of a setting


def setting_anchor(number: int) -> str:
    """Return the element id of the table of a setting."""
    return f"setting-{number}"


def overall_section(comparison: Comparison, marks: Sequence[VariantMark]) -> str:
    """Return the table over all targets and repetitions."""
    table = overall_table(comparison)
    rows = _rows(table, by_variant(marks))
    return _html(table, rows, text=(len(table.headings) - 1,), name="overall")


def setting_sections(comparison: Comparison, marks: Sequence[VariantMark]) -> str:
    """Return a heading and a table per target and repetition. The lowest losses are highlighted."""
    parts = []
    for number, setting in enumerate(comparison.settings):
        table = setting_table(setting, comparison.baseline)
        rows = _rows(table, by_variant(marks))
        for column, losses in (
            (TARGET, [row.test.mean for row in setting.rows]),
            (GENERAL, [row.general.mean for row in setting.rows]),
        ):
            lowest = losses.index(min(losses))
            if len(losses) > 1:
                rows[lowest][column] = Cell(_content(table.rows[lowest][column]), "best")
        parts.append(
            f'<h3 id="{setting_anchor(number)}">{isolated(setting_title(setting))}</h3>'
            f'<p class="caption">{escape_html(setting_facts(setting))}</p>{_html(table, rows)}'
        )
    return "".join(parts)


def cost_table(results: Sequence[Result], marks: Sequence[VariantMark]) -> str:
    """Return a table of what the runs of each variant cost, and of all runs together."""
    rows = [
        _cost(marked_name(mark), [r for r in results if r.variant == mark.variant])
        for mark in marks
    ]
    if len(marks) > 1:
        rows.append(_cost("all runs", results))
    headings = ["variant", "runs", "steps per run", "tokens per run", "seconds per run"]
    return html_table([*headings, "seconds of all runs", "scoring"], rows, name="costs")


def _cost(name: str, runs: Sequence[Result]) -> list[str]:
    seconds = sum(r.seconds for r in runs)
    return [
        name,
        f"{len(runs):,}",
        f"{sum(r.steps for r in runs) / len(runs):,.0f}",
        short_number(sum(r.tokens for r in runs) / len(runs)),
        f"{seconds / len(runs):,.1f}",
        f"{seconds:,.0f}",
        percent(measuring_share(runs)),
    ]


def by_variant(marks: Sequence[VariantMark]) -> Marks:
    """Return the marks by the names of their variants."""
    return {mark.variant: mark for mark in marks}


def _rows(table: TextTable, marks: Marks) -> list[list[str | Cell]]:
    return [[marked_name(marks[name.text]), *map(_content, cells)] for name, *cells in table.rows]


def _content(cell: TextCell) -> str:
    error = f' <span class="error">± {escape_html(cell.error)}</span>' if cell.error else ""
    return f"{isolated(cell.text) if cell.text else ''}{error}"


def _html(
    table: TextTable,
    rows: Sequence[Sequence[str | Cell]],
    *,
    text: tuple[int, ...] = (),
    name: str = "",
) -> str:
    headings = [isolated(heading) for heading in table.headings]
    return html_table(headings, rows, text=text, name=name, style="numbers")
