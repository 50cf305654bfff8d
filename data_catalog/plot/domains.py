"""Figures of the domains: a treemap, a map and the sizes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from data_catalog.format.centroids import project, read_centroids
from data_catalog.plot.colour import MARGIN, PLAIN, Colouring, colouring
from data_catalog.plot.look import (
    INK,
    NEUTRAL,
    PAPER,
    Figures,
    drawable,
    finest,
    finish,
    graph_objects,
    line_style,
    named,
    rows,
    sentence,
    short,
)
from data_catalog.untrusted import escape

if TYPE_CHECKING:
    import plotly.graph_objects as go

HOVER = "<b>%{customdata[0]}</b><br>%{customdata[1]}<br>%{customdata[2]}<extra></extra>"
NAMES, REACH = (
    24,
    (0.16, 0.05),
)  # names on the map at most; the part of its width and height that one takes
AREA, LINE_HEIGHT = 600_000, 17  # of a treemap about 1,100 pixels wide, in pixels
MOST_POINTS = 400  # of one curve of sizes


class DomainFigures(Figures):
    """What the domains are and how large."""

    def treemap(
        self, level: int | None = None, colour: str | None = None, kind: str = "hard"
    ) -> go.Figure:
        """Two levels as nested boxes: the coarsest and, inside, `level` (None: the finest up to 4,096). Areas are tokens.

        Data: `SELECT level, domain, documents, tokens, terms FROM domains WHERE level IN (16, 64)`, with
        `SELECT level, domain, weight FROM distributions WHERE name = 'NAME' AND kind = 'hard'` for the colour of a weight.

        Args:
            colour: a target, `natural` or `uniform`: the domain's weight in that distribution. `quality`: share of the documents
                of its main sources that rules and dedup dropped. `distance`: mean distance of its documents to the centroid of
                their leaf. A quality signal, such as `rps_doc_word_count`: its mean over the domain's documents, all of which are
                read. `source`: where most of its documents come from. None: all alike.
            kind: of a target's distribution, `hard` or `distance`.

        Raises:
            UserError: there is no such level, or no such colour.
        """
        catalog = self.catalog
        top = catalog.levels.granularities[0]
        level = drawable(catalog, level, finest(catalog))
        shades = colouring(catalog, sorted({top, level}), colour, kind)
        title = f"{level:,} domains by tokens"
        if not any(row["tokens"] for row in shades.rows):
            return sentence("No domain has any tokens.", title)
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
            labels=[escape(catalog.root.name), *texts],
            # A box that holds others is as large as these are together.
            values=[
                0,
                *(row["tokens"] if own else 0 for row, own in zip(boxes, inner, strict=True)),
            ],
            branchvalues="remainder",
            customdata=[["all domains", "", ""], *(_about(row, shades) for row in boxes)],
            hovertemplate=HOVER,
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
        """Centroids in two dimensions, the two principal axes of the finest level's. Circles' areas are tokens; colours as in `treemap`.

        Data: `SELECT domain, documents, tokens, terms FROM domains WHERE level = 64`, and the centroids, which SQL does not see:
        `data_catalog.format.centroids.read_centroids`.

        Raises:
            UserError: there is no such level, no such colour, or the centroids cannot be read.
        """
        catalog = self.catalog
        level = drawable(catalog, level, finest(catalog))
        places, variance = project(
            read_centroids(
                catalog.files, [k for k in catalog.levels.granularities if k <= finest(catalog)]
            )
        )
        shades = colouring(catalog, [level], colour, kind)
        # Small circles lie on large ones.
        circles = sorted(
            (row for row in shades.rows if np.isfinite(places[level][row["domain"]]).all()),
            key=lambda row: -(row["tokens"] or 0),
        )
        title = f"Centroids of {level:,} domains"
        if not circles:
            return sentence("No domain has a centroid.", title)
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
            hovertemplate=HOVER,
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
        note = f"area: tokens · the two axes hold {variance:.0%} of the centroids' variance"
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
        """Tokens of each domain, the largest first: a curve a level, or that of one level.

        Data: `SELECT level, domain, tokens, terms FROM domains ORDER BY level, tokens DESC`.

        Raises:
            UserError: there is no such level.
        """
        catalog = self.catalog
        levels = catalog.levels.granularities if level is None else (level,)
        for k in levels:
            catalog.levels.span(k)
        query = """
            SELECT level, domain, documents, tokens, terms[1:8] AS terms,
                   row_number() OVER (PARTITION BY level ORDER BY tokens DESC, domain) AS rank
            FROM domains WHERE list_contains($levels, level) AND tokens > 0 ORDER BY level, rank"""
        found = rows(catalog, query, levels=list(levels))
        figure = graph_objects().Figure()
        for number, k in enumerate(levels):
            curve = [row for row in found if row["level"] == k]
            curve = [curve[i] for i in _spread(len(curve))]
            figure.add_scatter(
                x=[row["rank"] for row in curve],
                y=[row["tokens"] for row in curve],
                customdata=[_about(row) for row in curve],
                hovertemplate=HOVER,
                name=f"level {k:,}",
                mode="lines+markers",
                **line_style(number),
            )
        figure.update_traces(marker_size=4)
        figure.update_xaxes(title_text="rank of the domain, 1 the largest", type="log", dtick=1)
        figure.update_yaxes(
            title_text="tokens", type="log", dtick=1, exponentformat="SI", minexponent=2
        )
        return finish(
            figure, "Sizes of the domains", "both axes are logarithmic; empty domains are left out"
        )


def _colours(
    shades: Colouring, level: int, boxes: list[Mapping[str, Any]], inner: list[bool]
) -> tuple[list[Any], dict[str, Any]]:
    """A colour for the whole and one each row, neutral for what is not `inner`; and what plotly's marker needs beside them."""
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
        return [PAPER, *(PLAIN if own else PAPER for own in inner)], {}
    place = shades.places(level)
    return [
        -MARGIN,
        *(place(row["value"]) if own else -MARGIN for row, own in zip(boxes, inner, strict=True)),
    ], shades.scale(level)


def _texts(boxes: list[Mapping[str, Any]], inner: list[bool]) -> list[str]:
    """As many words as have room in a box when all are shown: below each other, or in one line above the boxes in it."""
    total = sum(row["tokens"] for row, own in zip(boxes, inner, strict=True) if own)
    found = []
    for row, own in zip(boxes, inner, strict=True):
        side = (AREA * row["tokens"] / total) ** 0.5  # pixels, if it were a square
        words = [escape(term, 24) for term in row["terms"] or []]
        if own and side < 2 * LINE_HEIGHT:
            found.append(
                " "
            )  # thousands of texts that do not fit would take the browser seconds to find out
        elif own:
            found.append(
                "<br>".join(
                    [
                        f"<b>{row['domain']}</b>",
                        *words[: min(max(int(side / LINE_HEIGHT) - 2, 0), 4)],
                    ]
                )
            )
        else:
            fitting = int(side / 55)  # a word and its comma
            found.append(f"<b>{row['domain']}</b> {', '.join(words[: min(fitting, 4)])}")
    return found


def _about(row: Mapping[str, Any], shades: Colouring | None = None) -> list[str]:
    """What is written beside the pointer: the domain, its terms, its size and value."""
    terms = ", ".join(escape(term, 30) for term in row["terms"] or []) or "no terms"
    lines = [f"{row['documents'] or 0:,} documents, {short(row['tokens'] or 0)} tokens"]
    if shades and shades.title:
        lines.append(f"{shades.title}: {shades.write(row['value'])}")
    return [f"{row['level']:,}/{row['domain']}", terms, "<br>".join(lines)]


def _names(circles: list[Mapping[str, Any]], at: np.ndarray) -> list[str]:
    """The largest circles' numbers and terms, as far as they do not write over each other; empty for the others."""
    span = np.maximum(np.ptp(at, axis=0), 1e-12)
    taken: list[np.ndarray] = []
    texts = [""] * len(circles)
    for i, row in enumerate(circles):
        place = at[i] / span
        if len(taken) < NAMES and not any((np.abs(place - other) < REACH).all() for other in taken):
            taken.append(place)
            texts[i] = named(row["domain"], row["terms"], 2)
    return texts


def _spread(n: int) -> list[int]:
    """At most about MOST_POINTS places of n, closer to each other at the beginning."""
    if n <= MOST_POINTS:
        return list(range(n))
    return np.unique(np.geomspace(1, n, MOST_POINTS).round().astype(int) - 1).tolist()
