"""What commands print on the terminal."""

from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
from rich.console import Console
from rich.table import Table
from rich.text import Text

import data_catalog

LONGEST = 60  # characters of a cell
WIDTH = 200  # where there is no terminal


def print_table(table: pa.Table, console: Console | None = None) -> None:
    """An Arrow table; numbers to the right, long text cut."""
    shown = Table(box=None, header_style="bold", pad_edge=False)
    for field in table.schema:
        number = pa.types.is_integer(field.type) or pa.types.is_floating(field.type) or pa.types.is_decimal(field.type)
        shown.add_column(field.name, justify="right" if number else "left")
    for row in table.to_pylist():
        shown.add_row(*(Text(_cell(value)) for value in row.values()))  # Text: markup in a document stays text
    console = console or Console()
    if not console.is_terminal:
        console.width = WIDTH
    console.print(shown)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:,.4g}"
    if isinstance(value, int | Decimal) and not isinstance(value, bool):  # a DuckDB sum of integers is a decimal
        return f"{value:,}"
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    text = " ".join(text.split())
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"


def print_build(root: Path) -> None:
    """What a finished build holds, what it dropped and why, one row a stage."""
    catalog = data_catalog.open(root)
    levels = " → ".join(f"{k:,}" for k in catalog.levels.granularities)
    console = Console()
    console.print(f"[bold]{root}[/bold]: {catalog.manifest['documents']:,} documents in {levels} domains", highlight=False)
    for warning in catalog.manifest["warnings"]:
        console.print(f"[yellow]note[/yellow] {warning}", highlight=False)
    print_table(
        catalog.sql("""
            SELECT stage, sum(rows) FILTER (outcome = 'read') AS read, sum(rows) FILTER (outcome = 'kept') AS kept,
                   coalesce(string_agg(reason || ' ' || rows, ', ' ORDER BY rows DESC) FILTER (reason IS NOT NULL), '') AS dropped
            FROM accounting GROUP BY stage
            ORDER BY min(list_position(['source', 'quality', 'dedup', 'embed', 'assign', 'sort', 'shard'], stage))""").to_arrow_table()
    )
