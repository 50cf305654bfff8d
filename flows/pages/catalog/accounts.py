"""Tables of the catalog page as HTML: levels, dropped documents, and time per stage."""

from data_catalog import Catalog
from flows.pages.catalog.queries import query_rows
from flows.pages.shared.markup import escape_html, explained, html_table, isolated, short_number
from pipeline.describe.health import DOMAIN_FLAGS

SOURCES_PER_RULE = 3  # sources with the most dropped documents
MEASURE_HEADINGS = {
    "effective_domains": "Effective number of domains",
    "largest_by_mean": "Largest domain / mean",
    **{flag: f"Domains {words}" for flag, words in DOMAIN_FLAGS.items()},
    "nmi": "NMI with the labels",
    "purity": "Purity with the labels",
}

MEASURE_MEANINGS = {
    "effective_domains": "Number of equally large domains with the same entropy as the level.",
    "largest_by_mean": "Documents of the largest domain divided by the mean over the domains.",
    "nmi": "Normalised mutual information of domains and labels. 1 is perfect agreement.",
    "purity": "Share of documents whose label is the most frequent one of their domain.",
}


def levels_table(catalog: Catalog) -> str:
    """Return a table with a row per level and the measures of the view `health` that are not 0."""
    measures_of: dict[int, dict[str, float]] = {k: {} for k in catalog.levels.granularities}
    for level, measure, value in query_rows(catalog, "SELECT level, measure, value FROM health"):
        measures_of.get(level, {})[measure] = value
    measures = [
        name
        for name in MEASURE_HEADINGS
        if any(values.get(name) for values in measures_of.values())
    ]
    rows = [
        [f"{level:,}", *(short_number(values.get(name)) for name in measures)]
        for level, values in measures_of.items()
    ]
    headings = [
        explained(MEASURE_HEADINGS[name], MEASURE_MEANINGS[name])
        if name in MEASURE_MEANINGS
        else MEASURE_HEADINGS[name]
        for name in measures
    ]
    return html_table(["Level", *headings], rows)


def totals(catalog: Catalog) -> dict[str, int]:
    """Return the number of documents that the whole build read, dropped and failed on."""
    read = _read(catalog).get("source", {}).get("rows", 0)
    query = """SELECT outcome, sum(rows)::BIGINT FROM accounting
        WHERE outcome IN ('dropped', 'failed') GROUP BY outcome"""
    lost = dict(query_rows(catalog, query))
    return {"read": read, "dropped": lost.get("dropped", 0), "failed": lost.get("failed", 0)}


def drops_table(catalog: Catalog) -> str:
    """Return a table with a row per rule, dedup tier or kind of failure, most documents first."""
    read = totals(catalog)["read"]
    sources: dict[str, list[str]] = {}
    query = f"""SELECT reason, left(source, 60), rows FROM removed
        QUALIFY row_number() OVER (PARTITION BY reason ORDER BY rows DESC, source)
            <= {SOURCES_PER_RULE}
        ORDER BY reason, rows DESC, source"""  # noqa: S608
    for reason, source, rows in query_rows(catalog, query):
        sources.setdefault(reason, []).append(f"{isolated(source or 'unknown')} ({rows:,})")
    lines = []
    query = """SELECT stage, outcome, reason, rows, characters FROM accounting
        WHERE outcome IN ('dropped', 'failed') ORDER BY rows DESC, stage, reason"""
    lost = query_rows(catalog, query)
    highest = lost[0][3] if lost else 0
    for stage, outcome, reason, rows, characters in lost:
        share = rows / read if read else 0.0
        first = isolated(reason) + (" (failed)" if outcome == "failed" else "")
        amounts = [
            f"{rows:,}",
            _bar(rows / highest if highest else 0.0),
            f"{share:.2%}",
            short_number(characters),
        ]
        lines.append([first, escape_html(stage), *amounts, ", ".join(sources.get(reason, []))])
    if not lines:
        return "<p class='caption'>No documents were dropped.</p>"
    head = [
        "Rule",
        "Stage",
        "Documents",
        "",
        "Share of documents read",
        "Characters",
        "Sources with the most dropped documents",
    ]
    return html_table(head, lines, text=(1, 3, 6))


def notes_table(catalog: Catalog) -> str:
    """Return a table with a row per kind of note, or an empty string if there is none.

    Notes are about files that were not read, and lines and fields that lost no document.
    """
    if not query_rows(catalog, "SELECT 1 FROM accounting WHERE outcome = 'noted' LIMIT 1"):
        return ""  # also in catalogs without the view quarantine
    query = """SELECT stage, reason, rows, left(file, 120), left(detail, 400)
        FROM accounting LEFT JOIN (
            SELECT reason, min(file) AS file, arg_min(detail, file) AS detail
            FROM quarantine GROUP BY reason
        ) USING (reason)
        WHERE outcome = 'noted' ORDER BY rows DESC, stage, reason"""
    rows = [
        [
            isolated(reason),
            escape_html(stage),
            f"{number:,}",
            isolated(file or ""),
            isolated(detail or ""),
        ]
        for stage, reason, number, file, detail in query_rows(catalog, query)
    ]
    caption = (
        "<p class='caption'>Files that were not read, and lines and fields without effect. None of "
        "them is one of the documents above.</p>"
    )
    heading = ["Note", "Stage", "Number", "First file", "About this file"]
    return caption + html_table(heading, rows, text=(1, 3, 4))


def stages_table(catalog: Catalog) -> str:
    """Return a table with a row per stage. Rates are per document or character that it read.

    Stages with accounting are in their order. The others follow by time.
    """
    seconds = {
        str(stage): float(value)
        for stage, value in catalog.manifest.stage_seconds.items()
        if isinstance(value, int | float)
    }
    if not seconds:
        return "<p class='caption'>The manifest of this catalog has no times of stages.</p>"
    amounts, highest, total = _read(catalog), max(seconds.values()), sum(seconds.values())
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
                _bar(taken / highest if highest else 0),
                f"{taken / total if total else 0:.1%}",
                *rates,
            ]
        )
    return html_table(
        [
            "Stage",
            "Seconds",
            "",
            "Share of time",
            "Documents",
            "Documents per second",
            "Characters per second",
        ],
        lines,
        text=(2,),
    )


def _read(catalog: Catalog) -> dict[str, dict[str, int]]:
    """Return the documents and characters that each stage read, in the order of the stages."""
    query = "SELECT stage, rows, characters FROM accounting WHERE outcome = 'read'"
    return {
        stage: {"rows": rows, "characters": characters}
        for stage, rows, characters in query_rows(catalog, query)
    }


def _bar(share: float) -> str:
    """Return a decorative bar without a style attribute, which the page's policy forbids."""
    bar = f'<rect width="{100 * min(max(share, 0.0), 1.0):.2f}" height="10"/>'
    return (
        '<svg class="share" viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true">'
        f"{bar}</svg>"
    )
