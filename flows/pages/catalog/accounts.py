"""The tables below the page's charts, as HTML: levels, what was dropped, and how long each stage took."""

from data_catalog import Catalog
from flows.pages.catalog.queries import ask
from flows.pages.shared.markup import escape_html, html_table, isolated, short_number
from pipeline.describe.health import FLAGS

SOURCES_PER_RULE = 3  # that lost most to a rule
MEASURE_HEADINGS = {
    "effective_domains": "As spread as so many equal domains",
    "largest_by_mean": "Largest by the mean",
    **{flag: f"Domains {words}" for flag, words in FLAGS.items()},
    "nmi": "NMI with the labels",
    "purity": "Purity by the labels",
}


def levels_table(catalog: Catalog) -> str:
    """One row a level of the tree: the measures of the view `health` that differ from 0 anywhere."""
    found: dict[int, dict[str, float]] = {k: {} for k in catalog.levels.granularities}
    for level, measure, value in ask(catalog, "SELECT level, measure, value FROM health"):
        found.get(level, {})[measure] = value
    measures = [
        name for name in MEASURE_HEADINGS if any(values.get(name) for values in found.values())
    ]
    rows = [
        [f"{level:,}", *(short_number(values.get(name)) for name in measures)]
        for level, values in found.items()
    ]
    return html_table(["Level", *(MEASURE_HEADINGS[name] for name in measures)], rows)


def totals(catalog: Catalog) -> dict[str, int]:
    """Documents read, dropped and failed, over the whole build."""
    read = _read(catalog).get("source", {}).get("rows", 0)
    query = "SELECT outcome, sum(rows)::BIGINT FROM accounting WHERE outcome IN ('dropped', 'failed') GROUP BY outcome"
    lost = dict(ask(catalog, query))
    return {"read": read, "dropped": lost.get("dropped", 0), "failed": lost.get("failed", 0)}


def drops_table(catalog: Catalog) -> str:
    """One row a rule, dedup tier or kind of failure, the most documents first; shares are of the documents that were read."""
    read = totals(catalog)["read"]
    losers: dict[str, list[str]] = {}
    query = f"""SELECT reason, left(source, 60), rows FROM removed
        QUALIFY row_number() OVER (PARTITION BY reason ORDER BY rows DESC, source) <= {SOURCES_PER_RULE} ORDER BY reason, rows DESC, source"""  # noqa: S608
    for reason, source, rows in ask(catalog, query):
        losers.setdefault(reason, []).append(f"{isolated(source or 'no source')} ({rows:,})")
    lines = []
    query = """SELECT stage, outcome, reason, rows, characters FROM accounting
        WHERE outcome IN ('dropped', 'failed') ORDER BY rows DESC, stage, reason"""
    lost = ask(catalog, query)
    most = lost[0][3] if lost else 0
    for stage, outcome, reason, rows, characters in lost:
        share = rows / read if read else 0.0
        first = isolated(reason) + (" (failed)" if outcome == "failed" else "")
        amounts = [
            f"{rows:,}",
            _bar(rows / most if most else 0.0),
            f"{share:.2%}",
            short_number(characters),
        ]
        lines.append([first, escape_html(stage), *amounts, ", ".join(losers.get(reason, []))])
    if not lines:
        return "<p class='caption'>Nothing was dropped.</p>"
    head = [
        "Rule",
        "Stage",
        "Documents",
        "",
        "Of what was read",
        "Characters",
        "Sources that lost most",
    ]
    return html_table(head, lines, text=(1, 3, 6))


def stages_table(catalog: Catalog) -> str:
    """One row a stage, in the order of the books, then those without books by time; rates are of what a stage read."""
    seconds = {
        str(stage): float(value)
        for stage, value in catalog.manifest.stage_seconds.items()
        if isinstance(value, int | float)
    }
    if not seconds:
        return (
            "<p class='caption'>The catalog's manifest does not say how long its stages took.</p>"
        )
    amounts, most, total = _read(catalog), max(seconds.values()), sum(seconds.values())
    order = {stage: i for i, stage in enumerate(amounts)}
    lines = []
    for stage, taken in sorted(
        seconds.items(), key=lambda item: (order.get(item[0], len(order)), -item[1])
    ):
        amount = amounts.get(stage)
        rates = ["–", "–", "–"]
        if amount is not None:
            rate = [
                f"{amount[unit] / taken:,.0f}" if taken > 0 else "–"
                for unit in ("rows", "characters")
            ]
            rates = [f"{amount['rows']:,}", *rate]
        lines.append(
            [
                escape_html(stage),
                f"{taken:,.1f}",
                _bar(taken / most if most else 0),
                f"{taken / total if total else 0:.1%}",
                *rates,
            ]
        )
    return html_table(
        [
            "Stage",
            "Seconds",
            "",
            "Of all",
            "Documents",
            "Documents a second",
            "Characters a second",
        ],
        lines,
        text=(2,),
    )


def _read(catalog: Catalog) -> dict[str, dict[str, int]]:
    """What each stage read, in the order of the books."""
    query = "SELECT stage, rows, characters FROM accounting WHERE outcome = 'read'"
    return {
        stage: {"rows": rows, "characters": characters}
        for stage, rows, characters in ask(catalog, query)
    }


def _bar(share: float) -> str:
    """Decoration: the number stands beside it. DrawnDomains with attributes, as the page's policy forbids styles in tags."""
    bar = f'<rect width="{100 * min(max(share, 0.0), 1.0):.2f}" height="10"/>'
    return f'<svg class="share" viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true">{bar}</svg>'
