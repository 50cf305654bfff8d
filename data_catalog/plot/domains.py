"""Figures of the domains: a treemap, a map and the sizes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from data_catalog.format.centroids import project, read_centroids
from data_catalog.plot.colour import DEFAULT_FILL, NO_VALUE, Colouring, read_colouring
from data_catalog.plot.look import (
    INK,
    NEUTRAL,
    PAPER,
    Figures,
    domain_label,
    drawable_level,
    empty_figure,
    finest_drawable,
    finish,
    format_count,
    graph_objects,
    line_style,
    query_records,
)
from data_catalog.untrusted import escape

if TYPE_CHECKING:
    import plotly.graph_objects as go

_HOVER = "<b>%{customdata[0]}</b><br>%{customdata[1]}<br>%{customdata[2]}<extra></extra>"
_MAXIMUM_LABELS = 24  # maximum number of labels on the map
_LABEL_SIZE = (0.16, 0.05)  # shares of the map's width and height
_TREEMAP_PIXELS = 600_000  # area of a treemap about 1,100 pixels wide
_LINE_PIXELS = 17
_MAXIMUM_POINTS = 400  # points per curve of sizes


class DomainFigures(Figures):
    """Figures of the domains and their sizes."""

    def treemap(
        self, level: int | None = None, colour: str | None = None, kind: str = "hard"
    ) -> go.Figure:
        """Draw two levels as nested boxes, with the number of tokens as their area.

        Data: `SELECT level, domain, documents, tokens, terms FROM domains WHERE level IN (16, 64)`.
        For the colour of a weight, also `SELECT level, domain, weight FROM distributions WHERE
        name = 'NAME' AND kind = 'hard'`.

        Args:
            level: Level of the inner boxes. The outer ones are the coarsest level. None means the
                finest level of up to 4,096 domains.
            colour: Colour of the domains. A target, `natural` or `uniform`: the weight in that
                distribution. `quality`: share of the documents of the domain's main sources that
                rules and dedup dropped. `distance`: mean distance of the documents to their leaf's
                centroid. A quality signal, such as `rps_doc_word_count`: its mean, which needs
                reading all documents. `source`: the most frequent source. None: one colour.
            kind: Kind of a target's distribution, `hard` or `distance`.

        Raises:
            UserError: There is no such level, colour or kind.
        """
        levels = self.files.levels
        top = levels.granularities[0]
        level = drawable_level(levels, level, finest_drawable(levels))
        shades = read_colouring(self.catalog, levels, sorted({top, level}), colour, kind)
        title = f"{level:,} domains by tokens"
        if not any(row["tokens"] for row in shades.rows):
            return empty_figure("No domain has any tokens.", title)
        boxes = [row for row in shades.rows if row["tokens"]]
        inner = [row["level"] == level for row in boxes]
        fills, scale = _colours(shades, level, boxes, inner)
        texts = _texts(boxes, inner)
        trace = graph_objects().Treemap(
            ids=["all", *(f"{row['level']}/{row['domain']}" for row in boxes)],
            parents=[
                "",
                *(
                    "all" if row["level"] == top else f"{top}/{row['domain'] // (level // top)}"
                    for row in boxes
                ),
            ],
            labels=[escape(self.files.root.name), *texts],
            # A box with inner boxes has the size of these together.
            values=[
                0,
                *(row["tokens"] if own else 0 for row, own in zip(boxes, inner, strict=True)),
            ],
            branchvalues="remainder",
            customdata=[["all domains", "", ""], *(_about(row, shades) for row in boxes)],
            hovertemplate=_HOVER,
            texttemplate="%{label}",
            marker={
                "colors": fills,
                "line": {"width": 0.5, "color": PAPER},
                "pad": {"t": 20, "l": 2, "r": 2, "b": 2},
                **scale,
            },
            pathbar={"thickness": 20},
        )
        figure = finish(
            graph_objects().Figure(trace),
            title,
            shades.legend(level) if shades.categories else "click a box to open it",
            height=680,
        )
        return figure.update_layout(
            margin={"t": 84 if shades.categories else 64, "l": 8, "r": 8, "b": 8},
            uniformtext={"minsize": 9, "mode": "hide"},
        )

    def map(
        self, level: int | None = None, colour: str | None = None, kind: str = "hard"
    ) -> go.Figure:
        """Draw the centroids on the two principal axes of the finest level's centroids.

        The areas of the circles are numbers of tokens.

        Data: `SELECT domain, documents, tokens, terms FROM domains WHERE level = 64`. The centroids
        are not available in SQL, see `data_catalog.format.centroids.read_centroids`.

        Args:
            level: Level of the domains. None means the finest level of up to 4,096 domains.
            colour: Colour of the domains, as in `treemap`.
            kind: Kind of a target's distribution, `hard` or `distance`.

        Raises:
            UserError: There is no such level, colour or kind, or the centroids cannot be read.
        """
        levels = self.files.levels
        finest = finest_drawable(levels)
        level = drawable_level(levels, level, finest)
        granularities = [k for k in levels.granularities if k <= finest]
        places, variance = project(read_centroids(self.files, granularities))
        shades = read_colouring(self.catalog, levels, [level], colour, kind)
        # Small circles are drawn above large ones.
        circles = sorted(
            (row for row in shades.rows if np.isfinite(places[level][row["domain"]]).all()),
            key=lambda row: -(row["tokens"] or 0),
        )
        title = f"Centroids of {level:,} domains"
        if not circles:
            return empty_figure("No domain has a centroid.", title)
        at = places[level][[row["domain"] for row in circles]]
        fills, scale = _colours(shades, level, circles, [True] * len(circles))
        largest, widest = (
            max(row["tokens"] or 0 for row in circles) or 1,
            120 / max(level, 16) ** 0.25,
        )
        trace = graph_objects().Scatter(
            x=at[:, 0].tolist(),
            y=at[:, 1].tolist(),
            mode="markers+text",
            text=_names(circles, at),
            textposition="bottom center",
            textfont={"size": 12, "color": INK, "shadow": "auto"},
            customdata=[_about(row, shades) for row in circles],
            hovertemplate=_HOVER,
            marker={
                **{
                    "size": [
                        max(widest * ((row["tokens"] or 0) / largest) ** 0.5, 4) for row in circles
                    ],
                    "opacity": 0.85,
                },
                **{"color": fills[1:], "line": {"width": 1, "color": "#8b949e"}, **scale},
            },
            cliponaxis=False,
        )
        note = f"area: tokens · the axes explain {variance:.0%} of the variance of the centroids"
        figure = finish(
            graph_objects().Figure(trace),
            title,
            f"{shades.legend(level)}<br>{note}" if shades.categories else note,
            height=680,
        )
        figure.update_layout(margin_t=112 if shades.categories else 76)
        figure.update_xaxes(title_text="first principal axis", showticklabels=False)
        return figure.update_yaxes(title_text="second principal axis", showticklabels=False)

    def domain_sizes(self, level: int | None = None) -> go.Figure:
        """Draw the number of tokens per domain, largest first, as one curve per level.

        Data: `SELECT level, domain, tokens, terms FROM domains ORDER BY level, tokens DESC`.

        Args:
            level: Level to draw. None means all.

        Raises:
            UserError: There is no such level.
        """
        levels = self.files.levels.granularities if level is None else (level,)
        for k in levels:
            self.files.levels.span(k)
        query = """
            SELECT level, domain, documents, tokens, terms[1:8] AS terms,
                   row_number() OVER (PARTITION BY level ORDER BY tokens DESC, domain) AS rank
            FROM domains WHERE list_contains($levels, level) AND tokens > 0
            ORDER BY level, rank"""
        rows = query_records(self.catalog, query, levels=list(levels))
        figure = graph_objects().Figure()
        for number, k in enumerate(levels):
            curve = [row for row in rows if row["level"] == k]
            curve = [curve[i] for i in _spread(len(curve))]
            figure.add_scatter(
                x=[row["rank"] for row in curve],
                y=[row["tokens"] for row in curve],
                customdata=[_about(row) for row in curve],
                hovertemplate=_HOVER,
                name=f"level {k:,}",
                mode="lines+markers",
                **line_style(number),
            )
        figure.update_traces(marker_size=4)
        figure.update_xaxes(title_text="rank of the domain by size", type="log", dtick=1)
        figure.update_yaxes(
            title_text="tokens", type="log", dtick=1, exponentformat="SI", minexponent=2
        )
        return finish(figure, "Sizes of the domains", "logarithmic axes, without empty domains")


def _colours(
    shades: Colouring, level: int, boxes: list[Mapping[str, Any]], inner: list[bool]
) -> tuple[list[Any], dict[str, Any]]:
    """Return the colours and further properties of plotly's marker.

    The first colour is that of the whole. The others belong to the boxes. Boxes that are not
    `inner` have no colour of their own.
    """
    if shades.categories:
        fills = shades.fills(level)
        return [
            PAPER,
            *(
                fills.get(row["value"], NEUTRAL) if own else PAPER
                for row, own in zip(boxes, inner, strict=True)
            ),
        ], {}
    if not shades.title:
        return [PAPER, *(DEFAULT_FILL if own else PAPER for own in inner)], {}
    place = shades.places(level)
    return [
        NO_VALUE,
        *(place(row["value"]) if own else NO_VALUE for row, own in zip(boxes, inner, strict=True)),
    ], shades.scale(level)


def _texts(boxes: list[Mapping[str, Any]], inner: list[bool]) -> list[str]:
    """Return the label of each box, with as many terms as fit.

    The terms of an inner box are below each other. Those of an outer box are on one line above
    the boxes inside.
    """
    total = sum(row["tokens"] for row, own in zip(boxes, inner, strict=True) if own)
    labels = []
    for row, own in zip(boxes, inner, strict=True):
        side = (_TREEMAP_PIXELS * row["tokens"] / total) ** 0.5  # in pixels, of a square
        words = [escape(term, 24) for term in row["terms"] or []]
        number = f"<b>{row['domain']}</b>"
        if own and side < 2 * _LINE_PIXELS:
            labels.append(" ")  # the browser would need seconds to test thousands of long labels
        elif own:
            fitting = max(int(side / _LINE_PIXELS) - 2, 0)
            labels.append("<br>".join([number, *words[: min(fitting, 4)]]))
        else:
            fitting = int(side / 55)  # pixels of a word and its comma
            labels.append(f"{number} {', '.join(words[: min(fitting, 4)])}")
    return labels


def _about(row: Mapping[str, Any], shades: Colouring | None = None) -> list[str]:
    """Return the lines of a tooltip: the domain, its terms, and its size and value."""
    terms = ", ".join(escape(term, 30) for term in row["terms"] or []) or "no terms"
    lines = [f"{row['documents'] or 0:,} documents, {format_count(row['tokens'] or 0)} tokens"]
    if shades and shades.title:
        lines.append(f"{shades.title}: {shades.write(row['value'])}")
    return [f"{row['level']:,}/{row['domain']}", terms, "<br>".join(lines)]


def _names(circles: list[Mapping[str, Any]], at: np.ndarray) -> list[str]:
    """Return labels for the largest circles whose labels do not overlap, empty for the others."""
    span = np.maximum(np.ptp(at, axis=0), 1e-12)
    taken: list[np.ndarray] = []
    texts = [""] * len(circles)
    for i, row in enumerate(circles):
        place = at[i] / span
        if len(taken) < _MAXIMUM_LABELS and not any(
            (np.abs(place - other) < _LABEL_SIZE).all() for other in taken
        ):
            taken.append(place)
            texts[i] = domain_label(row["domain"], row["terms"], 2)
    return texts


def _spread(n: int) -> list[int]:
    """Return at most about `_MAXIMUM_POINTS` of n positions, denser at the beginning."""
    if n <= _MAXIMUM_POINTS:
        return list(range(n))
    return np.unique(np.geomspace(1, n, _MAXIMUM_POINTS).round().astype(int) - 1).tolist()
