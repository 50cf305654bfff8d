"""What all figures share: plotly itself, colours that colour-blind readers tell apart, and how numbers and text are written."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from data_catalog.errors import UserError
from data_catalog.untrusted import escape

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from data_catalog.query.database import Catalog

INK, SOFT, LINE, PAPER, NEUTRAL = "#1c2024", "#5a626b", "#dfe3e8", "#ffffff", "#dde2e8"
LINES = ("#0072b2", "#d55e00", "#00805c", "#b0508f", "#8f6b00", "#2c93c7", "#7a4b2a", "#4d4d4d")
FILLS = ("#3a8fc4", "#e69f4c", "#3fae8c", "#d597bd", "#ecd95a", "#9ad0ef", "#b98a67", "#c3c8ce")
RAMP = ("#edf2f6", "#b5d3e7", "#65a6d1", "#2a72ae", "#0a3868")  # from little to much
DASHES = (
    "solid",
    "dash",
    "dot",
    "dashdot",
)  # with LINES, 32 lines that differ; markers differ as well
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "x", "triangle-down", "star")
MOST_DOMAINS = 4_096  # of one level in a figure that draws each


@dataclass(frozen=True)
class Figures:
    """The figures of one open catalog."""

    catalog: Catalog


def graph_objects() -> Any:
    """plotly's, which is slow to import and not everywhere.

    Raises:
        UserError: plotly is not installed.
    """
    try:
        import plotly.graph_objects as go  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise UserError(
            f"plots need plotly ({error}); pip install 'clustermix[notebook]'"
        ) from error
    return go


def rows(catalog: Catalog, query: str, **parameters: Any) -> list[dict[str, Any]]:
    """The answer to one SELECT, a dict a row. A parameter NAME stands as $NAME in the query."""
    return catalog.table(query, parameters).to_pylist()


def finish(figure: go.Figure, title: str, note: str = "", height: int = 480) -> go.Figure:
    """The figure with its title, the `note` below it, and the common look; both are markup."""
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
        modebar={
            "remove": ["sendChartToCloud"]
        },  # what is in a catalog is not for a stranger's server
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


def sentence(text: str, title: str) -> go.Figure:
    """A figure that says why there is nothing to draw."""
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


def named(domain: int, terms: Iterable[str] | None, most: int = 4) -> str:
    """A domain's number and first terms, as markup."""
    words = ", ".join(escape(term, 30) for term in list(terms or [])[:most])
    return f"{domain} {words}" if words else str(domain)


def share(value: float) -> str:
    """0.1234 as 12.3%, 0.5 as 50%, 0.001234 as 0.12%."""
    return f"{100 * value:.3g}%" if value >= 0.0995 else f"{100 * value:.2g}%"


def short(value: float) -> str:
    """12,300,000 as 12.3M."""
    for size, letter in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= size:
            return f"{value / (1e3 if letter == 'k' else size):.3g}{letter}"
    return f"{value:,.4g}" if value < 1000 else f"{value:,.0f}"


def line_style(number: int) -> dict[str, Any]:
    """Line and marker of the trace `number`: no two of the first 32 alike, and the first 8 differ twice over."""
    colour = LINES[number % len(LINES)]
    dash = DASHES[number // len(LINES) % len(DASHES)]
    return {
        "line": {"color": colour, "dash": dash, "width": 2},
        "marker": {"symbol": SYMBOLS[number % len(SYMBOLS)], "size": 7, "color": colour},
    }


def drawable(catalog: Catalog, level: int | None, default: int) -> int:
    """`level`, or the default if it is None.

    Raises:
        UserError: the catalog has no such level, or it has too many domains to be drawn one by one.
    """
    level = default if level is None else level
    catalog.levels.span(level)
    if level > MOST_DOMAINS:
        shown = [k for k in catalog.levels.granularities if k <= MOST_DOMAINS]
        raise UserError(
            f"level {level}: a figure draws at most {MOST_DOMAINS:,} domains; take one of the levels {shown}, or ask in SQL"
        )
    return level


def finest(catalog: Catalog) -> int:
    """The finest level that can be drawn domain by domain."""
    granularities = catalog.levels.granularities
    return max((k for k in granularities if k <= MOST_DOMAINS), default=granularities[0])
