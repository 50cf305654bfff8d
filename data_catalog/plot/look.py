"""Colours, layout and formatting shared by all figures.

Colour-blind readers can distinguish the colours.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from data_catalog.errors import UserError
from data_catalog.format.files import CatalogFiles
from data_catalog.format.layout import Levels
from data_catalog.queryable import Queryable
from data_catalog.untrusted import escape

if TYPE_CHECKING:
    import plotly.graph_objects as go

INK, SOFT, LINE, PAPER, NEUTRAL = "#1c2024", "#5a626b", "#dfe3e8", "#ffffff", "#dde2e8"
LINES = ("#0072b2", "#d55e00", "#00805c", "#b0508f", "#8f6b00", "#2c93c7", "#7a4b2a", "#4d4d4d")
FILLS = ("#3a8fc4", "#e69f4c", "#3fae8c", "#d597bd", "#ecd95a", "#9ad0ef", "#b98a67", "#c3c8ce")
RAMP = ("#edf2f6", "#b5d3e7", "#65a6d1", "#2a72ae", "#0a3868")  # from small to large values
DASHES = ("solid", "dash", "dot", "dashdot")  # 32 different lines together with LINES
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "x", "triangle-down", "star")
MAXIMUM_DRAWN_DOMAINS = 4_096


@dataclass(frozen=True)
class Figures:
    """Figures of one open catalog."""

    catalog: Queryable
    """Answers the SQL queries."""
    files: CatalogFiles
    """Files of the same catalog."""


def graph_objects() -> Any:
    """Import and return `plotly.graph_objects`, which is slow to import and optional.

    Raises:
        UserError: Plotly is not installed.
    """
    try:
        import plotly.graph_objects as go  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise UserError(
            f"plot: plotly is not installed ({error}). Run pip install 'clustermix[notebook]'."
        ) from error
    return go


def query_records(catalog: Queryable, query: str, **parameters: Any) -> list[dict[str, Any]]:
    """Return the result of one SELECT, one dict per row. `parameters` are the values of $NAME."""
    return catalog.table(query, parameters).to_pylist()


def finish(figure: go.Figure, title: str, note: str = "", height: int = 480) -> go.Figure:
    """Add the title, the `note` below it and the common layout. Both texts are markup."""
    below = f"<br><span style='font-size:13px;color:{SOFT}'>{note}</span>" if note else ""
    figure.update_layout(
        template="none",
        title={
            "text": f"{title}{below}",
            "x": 0,
            "xref": "paper",
            "y": 1,
            "yref": "container",
            "yanchor": "top",
            "pad": {"t": 16},
        },
        font={"family": "system-ui, Segoe UI, Noto Sans, sans-serif", "size": 13, "color": INK},
        title_font_size=17,
        paper_bgcolor=PAPER,
        plot_bgcolor=PAPER,
        colorway=LINES,
        height=height,
        margin={"t": 76, "l": 64, "r": 24, "b": 56},
        hoverlabel={
            "align": "left",
            "bgcolor": PAPER,
            "bordercolor": SOFT,
            "font": {"color": INK, "size": 13},
        },
        legend={"itemwidth": 42},
        modebar={"remove": ["sendChartToCloud"]},  # data must not be sent to another server
    )
    figure.update_xaxes(
        gridcolor=LINE,
        zeroline=False,
        linecolor=LINE,
        automargin=True,
        title_font={"color": SOFT, "size": 13},
    )
    figure.update_yaxes(
        gridcolor=LINE,
        zeroline=False,
        linecolor=LINE,
        automargin=True,
        title_font={"color": SOFT, "size": 13},
    )
    return figure


def empty_figure(text: str, title: str) -> go.Figure:
    """Return a figure without data. `text` explains why there is none."""
    figure = graph_objects().Figure()
    figure.add_annotation(
        text=text,
        showarrow=False,
        x=0,
        y=1,
        xref="paper",
        yref="paper",
        xanchor="left",
        font_size=14,
    )
    figure.update_xaxes(visible=False)
    figure.update_yaxes(visible=False)
    return finish(figure, title, height=180)


def domain_label(domain: int | str, terms: Iterable[str] | None, count: int = 4) -> str:
    """Return a domain's number and its first `count` terms, as markup."""
    words = ", ".join(escape(term, 30) for term in list(terms or [])[:count])
    return f"{domain} {words}" if words else str(domain)


def format_share(value: float) -> str:
    """Format a share in percent: 0.1234 as 12.3%, 0.5 as 50%, 0.001234 as 0.12%."""
    return f"{100 * value:.3g}%" if value >= 0.0995 else f"{100 * value:.2g}%"


def format_count(value: float) -> str:
    """Format a large number with a suffix: 12,300,000 as 12.3M."""
    for size, letter in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= size:
            return f"{value / (1e3 if letter == 'k' else size):.3g}{letter}"
    return f"{value:,.4g}" if value < 1000 else f"{value:,.0f}"


def line_style(number: int) -> dict[str, Any]:
    """Return the line and marker of trace `number`.

    The first 32 traces are all different. The first 8 differ in both colour and marker.
    """
    colour = LINES[number % len(LINES)]
    dash = DASHES[number // len(LINES) % len(DASHES)]
    return {
        "line": {"color": colour, "dash": dash, "width": 2},
        "marker": {"symbol": SYMBOLS[number % len(SYMBOLS)], "size": 7, "color": colour},
    }


def drawable_level(levels: Levels, level: int | None, default: int) -> int:
    """Return `level`, or `default` if it is None.

    Raises:
        UserError: The catalog has no such level, or it has too many domains for a figure.
    """
    level = default if level is None else level
    levels.span(level)
    if level > MAXIMUM_DRAWN_DOMAINS:
        drawable = [k for k in levels.granularities if k <= MAXIMUM_DRAWN_DOMAINS]
        raise UserError(
            f"level {level}: too many domains. Figures show at most {MAXIMUM_DRAWN_DOMAINS:,}. "
            f"Use one of the levels {drawable}, or query the level with SQL."
        )
    return level


def finest_drawable(levels: Levels) -> int:
    """Return the finest level that a figure can show. It is the coarsest if all are too large."""
    drawable = (k for k in levels.granularities if k <= MAXIMUM_DRAWN_DOMAINS)
    return max(drawable, default=levels.granularities[0])
