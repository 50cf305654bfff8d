"""Tables and summaries that commands print on the terminal."""

import json
from collections.abc import Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from rich.console import Console
from rich.table import Table
from rich.text import Text

import data_catalog
from data_catalog.place import Folder

if TYPE_CHECKING:  # keeps queries fast: planning imports the encoder
    from pipeline.planning.estimate import Estimate, Note
    from pipeline.planning.heads import EstimatedCount

MAXIMUM_CELL_CHARACTERS = 60
NOTABLE_DISTANT_SHARE = 0.3  # of a target's documents; a sample of the corpus has about 0.05
PIPE_WIDTH = 200  # columns, if standard output is not a terminal
_RUN_COLUMNS = {  # printed heading -> key of summary_table
    "target loss": "target_test_loss",
    "general loss": "general_loss",
    "tokens": "tokens",
    "repeats": "repeats",
    "seconds": "seconds",
}


def stdout_console() -> Console:
    """Return a console on standard output that is wide if it is not a terminal."""
    console = Console()
    if not console.is_terminal:
        console.width = PIPE_WIDTH
    return console


def print_table(table: pa.Table, console: Console | None = None) -> None:
    """Print an Arrow table. Numbers are right-aligned, and long text is cut."""
    printed = Table(box=None, header_style="bold", pad_edge=False)
    for field in table.schema:
        is_number = (
            pa.types.is_integer(field.type)
            or pa.types.is_floating(field.type)
            or pa.types.is_decimal(field.type)
        )
        printed.add_column(field.name, justify="right" if is_number else "left")
    for row in table.to_pylist():
        printed.add_row(*(Text(_cell(value)) for value in row.values()))  # Text: no markup
    console = console or stdout_console()
    console.print(printed)
    if not table.num_rows:
        console.print("(0 rows)", highlight=False)


def print_rows(rows: list[dict[str, Any]]) -> None:
    """Print rows with the same keys as a table."""
    print_table(pa.Table.from_pylist(rows))


def print_runs(runs: Sequence[Path], difference: str) -> None:
    """Print the results of runs that are compared.

    Args:
        runs: Folders of finished runs.
        difference: Column that tells the runs apart, a key of `summary_table`.
    """
    from flows.pages.run import summary_table

    columns = {difference: difference, **_RUN_COLUMNS}
    rows = summary_table(runs)
    print_rows([{name: row[key] for name, key in columns.items()} for row in rows])
    stdout_console().print(
        "Losses are in nats per token on held-out text, for one seed. "
        "Repeats is sampled sequences divided by distinct sampled sequences.",
        highlight=False,
    )


def print_tables(tables: Mapping[str, pa.Table]) -> None:
    """Print tables, each below its name."""
    for number, (name, table) in enumerate(tables.items()):
        Console().print(f"{chr(10) if number else ''}[bold]{name}[/bold]")
        print_table(table)


def labelled_lines(lines: Mapping[str, str]) -> Table:
    """Return a table of bold labels and texts. Lines without text are left out."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for label, text in lines.items():
        if text:
            table.add_row(Text(label), Text(text))
    return table


def print_domain(domain: Mapping[str, Any]) -> None:
    """Print one domain, as returned by `data_catalog.query.browse.describe_domain`."""

    def shares(rows: Sequence[Mapping[str, Any]] | None) -> str:
        return ", ".join(
            f"{cut_for_terminal(row['name'] or 'unknown', 30)} {row['share']:.0%}"
            for row in rows or ()
        )

    quantiles = ", ".join(f"{value:.2f}" for value in domain["distance_quantiles"] or ())
    lines = {
        "domain": f"{domain['domain']} of level {domain['level']:,}, "
        f"leaves {domain['first_leaf']:,} to {domain['last_leaf']:,}",
        "size": f"{domain['documents']:,} documents, {domain['tokens']:,} tokens",
        "terms": ", ".join(cut_for_terminal(term, 40) for term in domain["terms"] or ()),
        "flags": ", ".join(domain["flags"] or ()) or "none",
        "sources": shares(domain["top_sources"]),
        "languages": shares(domain["languages"]),
        "distances": f"{quantiles} (squared distance to the leaf's centroid, at the 5th, 25th, "
        "50th, 75th and 95th percentile)"
        if quantiles
        else "",
        "parent": ""
        if domain["parent"] is None
        else f"{domain['parent']} of level {domain['parent_level']:,}",
    }
    console = stdout_console()
    console.print(labelled_lines(lines))
    children = [
        {name: row[name] for name in ("domain", "documents", "tokens", "terms")}
        for row in domain["children"]
    ]
    tables = {
        f"children at level {domain['child_level'] or 0:,}": children,
        "targets": domain["targets"],
        "examples": domain["examples"],
    }
    for name, rows in tables.items():
        if rows:
            console.print(f"\n[bold]{name}[/bold]")
            print_rows(rows)


def print_estimate(estimate: "Estimate") -> None:
    """Print the estimated input, time and disk space of a build."""

    def about(amount: "EstimatedCount") -> str:
        return f"{amount.likely:,} ({amount.low:,} to {amount.high:,})"

    encoder = estimate.encoder
    devices = f" on {estimate.encoder_copies} devices" if estimate.encoder_copies > 1 else ""
    lines = {
        "corpus": f"{estimate.files:,} files in {estimate.shards:,} shards, "
        f"{estimate.bytes / 1e9:,.2f} GB (estimated from {estimate.shards_read} shards)",
        "documents": about(estimate.documents),
        "characters": about(estimate.characters),
        "tokens": about(estimate.tokens),
        "not read": _notes(estimate.unread),
        "in the heads": _notes(estimate.faults),
        "targets": f"{estimate.target_documents:,} documents, "
        f"{estimate.target_characters:,} characters",
        "encoder": f"{encoder.model} in {encoder.precision}, "
        f"{estimate.encoder_documents_per_second:,.0f} documents/s{devices}",
        "levels": ", ".join(f"{k:,}" for k in estimate.granularities) or "none",
        "tree": f"trained on {estimate.training_vectors:,} vectors, "
        f"about {estimate.tree_memory_bytes / 2**30:,.2f} GiB of memory",
        "time": f"{format_time(estimate.seconds)} ("
        + ", ".join(
            f"{stage} {format_time(seconds)}"
            for stage, seconds in estimate.stage_seconds.items()
            if seconds >= 1
        )
        + ")",
        "disk": f"{estimate.disk / 1e9:,.2f} GB ("
        + ", ".join(f"{name} {size / 1e9:,.2f}" for name, size in estimate.disk_bytes.items())
        + ")",
    }
    console = stdout_console()
    console.print(labelled_lines({name: text.removesuffix(" ()") for name, text in lines.items()}))
    _print_warnings(console, estimate.warnings)


def _notes(notes: Sequence["Note"]) -> str:
    return ", ".join(
        f"{note.reason} {note.number:,} ({cut_for_terminal(note.example, MAXIMUM_CELL_CHARACTERS)})"
        for note in notes
    )


def _print_warnings(console: Console, warnings: Sequence[str]) -> None:
    for warning in warnings:
        line = Text.assemble(("warning: ", "yellow"), warning)
        console.print(line, soft_wrap=True)


def format_time(seconds: float) -> str:
    minutes, hours = seconds / 60, seconds / 3600
    if hours >= 1:
        return f"{hours:,.1f} h"
    return f"{minutes:.0f} min" if minutes >= 2 else f"{seconds:.0f} s"


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:,.4g}"
    # DuckDB returns a sum of integers as a decimal.
    if isinstance(value, int | Decimal) and not isinstance(value, bool):
        return f"{value:,}"
    if isinstance(value, dict):  # a struct, such as a name and its share
        value = " ".join(_cell(part) for part in value.values())
    text = ", ".join(map(_cell, value)) if isinstance(value, list) else str(value)
    return cut_for_terminal(text, MAXIMUM_CELL_CHARACTERS)


def cut_for_terminal(text: str, maximum_characters: int) -> str:
    """Return untrusted text on one line, at most `maximum_characters` long.

    Control characters, and characters that change the writing direction, become spaces.
    """
    text = "".join(c if c.isprintable() else " " for c in text[: 4 * maximum_characters])
    text = " ".join(text.split())
    return text if len(text) <= maximum_characters else text[: maximum_characters - 3] + "..."


def search_sentences(catalog: data_catalog.Catalog) -> list[str]:
    """Return sentences on the tree: the library that trained it, and one per level on its search.

    The latter say how well the search assigns held-out documents.
    """
    description = catalog.files.layout.tree / "tree.json"
    catalog.files.compare(description)
    tree = json.loads(description.read_text(encoding="utf-8"))
    levels = tree["levels"]
    beam = str(catalog.manifest.config["cluster"]["beam"])
    health_sentences = []
    if "backend" in tree:  # trees of older versions are torch's
        health_sentences.append(f"tree trained with {tree['backend']} ({tree['device']})")
    for k in sorted(levels, key=int):
        # A small corpus has no held-out documents.
        if search := levels[k].get("search", {}).get(beam):
            health_sentences.append(
                f"search at level {k} (beam {beam}): finds the nearest centroid for "
                f"{search['found']:.1%} of held-out documents, inertia "
                f"{levels[k]['inertia']:.4f}, {max(search['excess'], 0):.2%} above exact search"
            )
    return health_sentences


def _reasons(catalog: data_catalog.Catalog) -> dict[str, str]:
    """Return the reasons of each stage and outcome with their numbers.

    Reasons that concern whole files come first, with the name of a file.
    """
    rows = catalog.table("""
        SELECT stage, outcome, reason, rows, file
        FROM accounting LEFT JOIN (
            SELECT reason, min(file) FILTER (row IS NULL) AS file FROM quarantine GROUP BY reason
        ) USING (reason)
        WHERE outcome IN ('dropped', 'failed', 'noted')
        ORDER BY outcome, file IS NULL, rows DESC, reason""")
    lines: dict[str, list[str]] = {}
    for row in rows.to_pylist():
        file = f" ({cut_for_terminal(row['file'], MAXIMUM_CELL_CHARACTERS)})" if row["file"] else ""
        lines.setdefault(f"{row['stage']} {row['outcome']}", []).append(
            f"{row['reason']} {row['rows']:,}{file}"
        )
    return {name: ", ".join(reasons) for name, reasons in lines.items()}


def print_build(root: Folder, verbose: bool = False) -> None:
    """Print the size of a finished catalog, what was dropped and why, and its targets.

    Args:
        root: The catalog.
        verbose: Print the documents of each stage, and the health of the tree too.
    """
    catalog = data_catalog.open(root)
    levels = ", ".join(f"{k:,}" for k in catalog.levels.granularities)
    console = Console()
    console.print(
        f"[bold]{root}[/bold]: {catalog.manifest.documents:,} documents, "
        f"{catalog.manifest.tokens:,} tokens, domains per level: {levels}",
        highlight=False,
    )
    _print_warnings(console, catalog.manifest.warnings)
    reasons = _reasons(catalog)
    if not verbose:  # a note loses no document
        reasons = {name: text for name, text in reasons.items() if not name.endswith(" noted")}
    stdout_console().print(labelled_lines(reasons))
    if verbose:
        _print_details(catalog, console)
    _print_targets(catalog, console)


def _print_targets(catalog: data_catalog.Catalog, console: Console) -> None:
    targets = catalog.sql("""
        SELECT name AS target, documents, tokens, out_of_distribution AS beyond,
               effective_domains AS "effective domains"
        FROM targets ORDER BY name""").to_arrow_table()
    if not targets.num_rows:
        return
    print_table(targets.drop_columns(["beyond"]))
    for row in targets.to_pylist():
        if row["beyond"] is not None and row["beyond"] >= NOTABLE_DISTANT_SHARE:
            text = (
                f"{row['beyond']:.0%} of the documents of target {row['target']} are unlike "
                "anything in the corpus: they are farther from the center of their domain than 95% "
                "of its documents."
            )
            console.print(Text(text), soft_wrap=True)


def _print_details(catalog: data_catalog.Catalog, console: Console) -> None:
    """Print the documents of each stage, the quality of the search, and the domains' health."""
    from pipeline.describe.health import health_sentences

    print_table(
        catalog.sql("""
            SELECT stage, sum(rows) FILTER (outcome = 'read') AS read,
                   sum(rows) FILTER (outcome = 'kept') AS kept,
                   coalesce(sum(rows) FILTER (outcome = 'dropped'), 0) AS dropped,
                   coalesce(sum(rows) FILTER (outcome = 'failed'), 0) AS failed
            FROM accounting GROUP BY stage
            ORDER BY min(list_position(
                ['source', 'quality', 'dedup', 'embed', 'assign', 'sort', 'shard'], stage
            ))""").to_arrow_table()
    )
    for sentence in search_sentences(catalog):
        console.print(sentence, highlight=False, soft_wrap=True)
    domains = catalog.sql(
        "SELECT level, domain, flags FROM domains ORDER BY level, domain"
    ).to_arrow_table()
    for sentence in health_sentences(catalog.sql("FROM health").to_arrow_table(), domains):
        console.print(Text(sentence), soft_wrap=True)
