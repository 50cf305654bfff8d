"""Assembly of the experiment page: text and tables as HTML, charts as JSON."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from data_catalog.errors import UserError
from data_catalog.temporary import replacing
from flows.comparison import Result
from flows.experiment_tables import DOMINATED, NO_PREDICTIONS, compare
from flows.pages.experiment.marks import variant_marks
from flows.pages.experiment.payload import experiment_page_data
from flows.pages.experiment.tables import cost_table, overall_section, setting_sections
from flows.pages.experiment.words import facts, findings, remarks
from flows.pages.shared.markup import escape_html, isolated
from flows.pages.shared.shell import assemble


def write_experiment_page(
    results: Sequence[Result],
    baseline: str,
    out: Path,
    predicted: Mapping[str, float] = NO_PREDICTIONS,
    title: str = "",
) -> Path:
    """Write a self-contained HTML file about an experiment, and return its path.

    Args:
        results: Results of the runs, such as those that `load_results` reads.
        baseline: Variant that the others are compared with.
        out: File to write.
        predicted: Expected mean differences of the target loss from the baseline, by variant.
        title: Title of the page. If empty, it names the folder of `out`.

    Raises:
        UserError: There are no results.
    """
    if not results:
        raise UserError(
            f"{out}: the experiment has no results. Expected at least one. Train its runs first."
        )
    title = title or f"Experiment {out.resolve().parent.name}"
    text = _render(results, baseline, title, predicted)
    with replacing(out) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return out


def _render(
    results: Sequence[Result], baseline: str, title: str, predicted: Mapping[str, float]
) -> str:
    comparison = compare(results, baseline, predicted)
    marks = variant_marks(results)
    sentences = [facts(results, baseline), *findings(comparison, marks)]
    fields = {
        "title": escape_html(title),
        "summary": "".join(f"<p>{sentence}</p>" for sentence in sentences),
        "notes": "".join(f"<li>{note}</li>" for note in remarks(results, baseline)),
        "baseline": isolated(baseline),
        "predictions": " Vertical lines: predictions." if predicted else "",
        "overall": overall_section(comparison, marks),
        "dominated": DOMINATED,
        "settings": setting_sections(comparison, marks),
        "cost": cost_table(results, marks),
    }
    return assemble(
        "flows.pages.experiment",
        ("labels.js", "frontier.js", "differences.js", "page.js"),
        title=title,
        fields=fields,
        data=experiment_page_data(comparison, marks),
        shared=["charts.js"],
    )
