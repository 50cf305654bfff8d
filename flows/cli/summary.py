"""What commands print on the terminal."""

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
from data_catalog.format.layout import Layout

if TYPE_CHECKING:  # a query need not wait for the encoder
    from pipeline.planning.estimate import Estimate
    from pipeline.planning.heads import Range

MAXIMUM_CELL_CHARACTERS = 60  # characters of a cell
PIPE_WIDTH = 200  # where there is no terminal


def print_table(table: pa.Table, console: Console | None = None) -> None:
    """An Arrow table; numbers to the right, long text cut."""
    shown = Table(box=None, header_style="bold", pad_edge=False)
    for field in table.schema:
        number = (
            pa.types.is_integer(field.type)
            or pa.types.is_floating(field.type)
            or pa.types.is_decimal(field.type)
        )
        shown.add_column(field.name, justify="right" if number else "left")
    for row in table.to_pylist():
        shown.add_row(
            *(Text(_cell(value)) for value in row.values())
        )  # Text: markup in a document stays text
    (console or _console()).print(shown)


def print_rows(rows: list[dict[str, Any]]) -> None:
    """Rows of one kind as a table."""
    print_table(pa.Table.from_pylist(rows))


def print_tables(tables: Mapping[str, pa.Table]) -> None:
    """Several tables, each below its name."""
    for number, (name, table) in enumerate(tables.items()):
        Console().print(f"{chr(10) if number else ''}[bold]{name}[/bold]")
        print_table(table)


def print_domain(found: Mapping[str, Any]) -> None:
    """One domain, as `data_catalog.query.browse.describe_domain` gives it."""

    def shares(rows: Sequence[Mapping[str, Any]] | None) -> str:
        return ", ".join(
            f"{cut_for_terminal(row['name'] or 'not named', 30)} {row['share']:.0%}"
            for row in rows or ()
        )

    quantiles = ", ".join(f"{value:.2f}" for value in found["distance_quantiles"] or ())
    lines = {
        "domain": f"{found['domain']} of {found['level']:,}, leaves {found['first_leaf']:,} to {found['last_leaf']:,}",
        "size": f"{found['documents']:,} documents, {found['tokens']:,} tokens",
        "terms": ", ".join(cut_for_terminal(term, 40) for term in found["terms"] or ()),
        "flags": ", ".join(found["flags"] or ()) or "none",
        "sources": shares(found["top_sources"]),
        "languages": shares(found["languages"]),
        "distances": f"squared, to the leaf's centroid, at 5, 25, 50, 75 and 95 %: {quantiles}"
        if quantiles
        else "",
        "parent": ""
        if found["parent"] is None
        else f"{found['parent']} of {found['parent_level']:,}",
    }
    shown = Table(box=None, show_header=False, pad_edge=False)
    shown.add_column(style="bold")
    shown.add_column(overflow="fold")
    for name, text in lines.items():
        if text:
            shown.add_row(name, Text(text))
    console = _console()
    console.print(shown)
    children = [
        {name: row[name] for name in ("domain", "documents", "tokens", "terms")}
        for row in found["children"]
    ]
    for name, rows in (
        ("children", children),
        ("targets", found["targets"]),
        ("examples", found["examples"]),
    ):
        if rows:
            console.print(
                f"\n[bold]{name}[/bold]"
                + (f" of level {found['child_level']:,}" if name == "children" else "")
            )
            print_rows(rows)


def _console() -> Console:
    """Standard output; wide where there is no terminal."""
    console = Console()
    if not console.is_terminal:
        console.width = PIPE_WIDTH
    return console


def print_estimate(found: "Estimate") -> None:
    """What a build would read, take and leave behind."""

    def about(amount: "Range") -> str:
        return f"{amount.likely:,} ({amount.low:,} to {amount.high:,})"

    encoder = f"{found.encoder.model} in {found.encoder.precision}, {found.encoder_documents_per_second:,.0f} documents/s"
    lines = {
        "corpus": f"{found.files:,} files in {found.shards:,} shards, {found.bytes / 1e9:,.2f} GB; {found.shards_read} heads were read",
        "documents": about(found.documents),
        "characters": about(found.characters),
        "tokens": about(found.tokens),
        "targets": f"{found.target_documents:,} documents, {found.target_characters:,} characters",
        "encoder": encoder
        + (f" on {found.encoder_copies} devices" if found.encoder_copies > 1 else ""),
        "levels": " → ".join(f"{k:,}" for k in found.granularities) or "none",
        "tree": f"trained on {found.training_vectors:,} vectors in about {found.tree_memory_bytes / 2**30:,.2f} GiB",
        "time": f"{_time(found.seconds)}: "
        + ", ".join(f"{name} {_time(s)}" for name, s in found.stage_seconds.items() if s >= 1),
        "disk": f"{found.disk / 1e9:,.2f} GB: "
        + ", ".join(f"{name} {size / 1e9:,.2f}" for name, size in found.disk_bytes.items()),
    }
    shown = Table(box=None, show_header=False, pad_edge=False)
    for name, text in lines.items():
        shown.add_row(Text(name, style="bold"), Text(text))
    console = _console()
    console.print(shown)
    for warning in found.warnings:
        console.print(f"[yellow]note[/yellow] {warning}", highlight=False, soft_wrap=True)


def _time(seconds: float) -> str:
    """Seconds in the unit that suits them."""
    minutes, hours = seconds / 60, seconds / 3600
    return (
        f"{hours:,.1f} h"
        if hours >= 1
        else f"{minutes:.0f} min"
        if minutes >= 2
        else f"{seconds:.0f} s"
    )


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:,.4g}"
    if isinstance(value, int | Decimal) and not isinstance(
        value, bool
    ):  # a DuckDB sum of integers is a decimal
        return f"{value:,}"
    if isinstance(value, dict):  # a struct, such as a name and its share
        value = " ".join(_cell(part) for part in value.values())
    return cut_for_terminal(
        ", ".join(map(_cell, value)) if isinstance(value, list) else str(value),
        MAXIMUM_CELL_CHARACTERS,
    )


def cut_for_terminal(text: str, longest: int) -> str:
    """Text of anyone, on one line of a terminal: what a terminal obeys, and what turns the direction of writing, becomes a space."""
    text = " ".join("".join(c if c.isprintable() else " " for c in text[: 4 * longest]).split())
    return text if len(text) <= longest else text[: longest - 1] + "…"


def search_sentences(catalog: data_catalog.Catalog) -> list[str]:
    """How well the tree's search places documents that it was not trained on, a sentence a level."""
    levels = json.loads((Layout(catalog.root).tree / "tree.json").read_text(encoding="utf-8"))[
        "levels"
    ]
    beam = str(catalog.manifest["config"]["cluster"]["beam"])
    sentences = []
    for k in sorted(levels, key=int):
        if (
            search := levels[k].get("search", {}).get(beam)
        ):  # a small corpus has nothing to hold out
            found, excess = search["found"], max(search["excess"], 0)
            sentences.append(
                f"search at level {k} (beam {beam}): the nearest of all cells found for {found:.1%}, "
                f"inertia {levels[k]['inertia']:.4f}, {excess:.2%} over the exact one"
            )
    return sentences


def print_build(root: Path) -> None:
    """What a finished build holds, what it dropped and why, one row a stage."""
    from pipeline.describe.health import sentences

    catalog = data_catalog.open(root)
    levels = " → ".join(f"{k:,}" for k in catalog.levels.granularities)
    console = Console()
    console.print(
        f"[bold]{root}[/bold]: {catalog.manifest['documents']:,} documents in {levels} domains",
        highlight=False,
    )
    for warning in catalog.manifest["warnings"]:
        console.print(f"[yellow]note[/yellow] {warning}", highlight=False)
    print_table(
        catalog.sql("""
            SELECT stage, sum(rows) FILTER (outcome = 'read') AS read, sum(rows) FILTER (outcome = 'kept') AS kept,
                   coalesce(string_agg(reason || ' ' || rows, ', ' ORDER BY rows DESC) FILTER (reason IS NOT NULL), '') AS dropped
            FROM accounting GROUP BY stage
            ORDER BY min(list_position(['source', 'quality', 'dedup', 'embed', 'assign', 'sort', 'shard'], stage))""").to_arrow_table()
    )
    for sentence in search_sentences(catalog):
        console.print(sentence, highlight=False, soft_wrap=True)
    domains = catalog.sql(
        "SELECT level, domain, flags FROM domains ORDER BY level, domain"
    ).to_arrow_table()
    for sentence in sentences(catalog.sql("FROM health").to_arrow_table(), domains):
        console.print(Text(sentence), soft_wrap=True)
    targets = catalog.sql("""
        SELECT name AS target, documents, tokens, round(out_of_distribution, 3) AS "out of distribution",
               effective_domains AS "effective domains"
        FROM targets ORDER BY name""").to_arrow_table()
    if targets.num_rows:
        print_table(targets)
