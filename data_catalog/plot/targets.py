"""Figures of the distributions over domains, and of dropped documents."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from data_catalog.errors import UserError
from data_catalog.plot.look import (
    LINES,
    RAMP,
    Figures,
    domain_label,
    drawable_level,
    empty_figure,
    finish,
    format_count,
    format_share,
    graph_objects,
    query_records,
)
from data_catalog.untrusted import escape

if TYPE_CHECKING:
    import plotly.graph_objects as go

_COLOUR_SCALE = [[i / (len(RAMP) - 1), colour] for i, colour in enumerate(RAMP)]
_MAXIMUM_LABELLED = 20  # columns up to which cells show their value
_Kind = Literal["hard", "distance"]
# Columns of distribution_overlaps with their title. True if larger values mean more similar.
_MEASURES = {
    "overlap": ("Overlap of distributions", True),
    "hellinger": ("Hellinger distance of distributions", False),
    "jensen_shannon": ("Jensen-Shannon divergence of distributions, nats", False),
}


class TargetFigures(Figures):
    """Figures of targets, their similarity and dropped documents."""

    def distributions(self, level: int | None = None, kind: _Kind = "hard") -> go.Figure:
        """Draw a heat map of the weight of each domain in each distribution.

        Columns are domains in the order of the tree.

        Data: `SELECT name, domain, weight FROM distributions WHERE level = 16 AND
        kind IN ('hard', 'natural', 'uniform')`, and the terms of `domains`.

        Args:
            level: Level of the domains. None means the coarsest.
            kind: Kind of the distributions, `hard` or `distance`.

        Raises:
            UserError: There is no such level or kind.
        """
        levels = self.files.levels
        level = drawable_level(levels, level, levels.granularities[0])
        query = """
            SELECT name, list(coalesce(weight, 0) ORDER BY domain) AS weights,
                   list(domain ORDER BY domain) AS domains,
                   list(terms[1:4] ORDER BY domain) AS terms
            FROM (
                SELECT DISTINCT name, kind FROM distributions
                WHERE level = $level AND kind IN ($kind, 'natural', 'uniform'))
            CROSS JOIN (SELECT domain, terms FROM domains WHERE level = $level)
            LEFT JOIN (FROM distributions WHERE level = $level) USING (name, kind, domain)
            GROUP BY name, kind ORDER BY kind IN ('natural', 'uniform'), name"""
        rows = query_records(self.catalog, query, level=level, kind=_check_kind(kind))
        title = f"Weights of {level:,} domains by distribution"
        if not rows:
            return empty_figure("The catalog has no distributions.", title)
        names = [
            domain_label(domain, terms)
            for domain, terms in zip(rows[0]["domains"], rows[0]["terms"], strict=True)
        ]
        weights = [row["weights"] for row in rows]
        top = max(max(row) for row in weights) or 1.0
        ticks = [0.0, 0.25, 0.5, 0.75, 1.0]
        trace = graph_objects().Heatmap(
            # Square roots spread small weights.
            z=[[(weight / top) ** 0.5 for weight in row] for row in weights],
            x=rows[0]["domains"],
            y=[escape(row["name"], 40) for row in rows],
            text=[[format_share(weight) for weight in row] for row in weights],
            customdata=[names] * len(rows),
            hovertemplate="%{y}<br><b>%{customdata}</b><br>weight %{text}<extra></extra>",
            texttemplate="%{text}" if level <= _MAXIMUM_LABELLED else None,
            textfont_size=11,
            colorscale=_COLOUR_SCALE,
            zmin=0,
            zmax=1,
            xgap=1 if level <= 128 else 0,
            ygap=1,
            colorbar={
                "tickvals": ticks,
                "ticktext": [format_share(top * at * at) for at in ticks],
                "outlinewidth": 0,
                "thickness": 14,
            },
        )
        assignment = "nearest domain" if kind == "hard" else "several near domains"
        note = (
            f"domains in the order of the tree · each row sums to 1 · documents count in their "
            f"{assignment}"
        )
        figure = finish(
            graph_objects().Figure(trace), title, note, height=max(180 + 30 * len(rows), 260)
        )
        figure.update_xaxes(
            showgrid=False,
            dtick=1 if level <= 64 else None,
            title_text="" if level <= _MAXIMUM_LABELLED else "domain",
        )
        if level <= _MAXIMUM_LABELLED:
            words = [
                domain_label(domain, terms, 2)
                for domain, terms in zip(rows[0]["domains"], rows[0]["terms"], strict=True)
            ]
            figure.update_xaxes(tickvals=rows[0]["domains"], ticktext=words, tickangle=-35)
        return figure.update_yaxes(type="category", autorange="reversed", showgrid=False, ticks="")

    def overlaps(
        self, level: int | None = None, kind: _Kind = "hard", measure: str = "overlap"
    ) -> go.Figure:
        """Draw a heat map of the similarity of each pair of distributions.

        Data: `SELECT name, other, overlap FROM distribution_overlaps WHERE level = 16 AND
        kind = 'hard'`.

        Args:
            level: Level of the domains. None means the coarsest.
            kind: Kind of the distributions, `hard` or `distance`.
            measure: `overlap`, from 0 (no common domain) to 1 (equal). `hellinger`, from 0 (equal)
                to 1. `jensen_shannon` in nats, from 0 (equal) to ln 2 = 0.693.

        Raises:
            UserError: There is no such level, kind or measure.
        """
        if measure not in _MEASURES:
            raise UserError(
                f"measure {measure!r}: unknown. Expected one of {', '.join(_MEASURES)}."
            )
        level = self.files.levels.granularities[0] if level is None else level
        self.files.levels.span(level)
        title, similarity = _MEASURES[measure]
        query = f"""
            SELECT name, list(other ORDER BY other) AS others,
                   list({measure} ORDER BY other) AS measures
            FROM distribution_overlaps WHERE level = $level AND kind = $kind
            GROUP BY name ORDER BY name"""  # noqa: S608 (one of _MEASURES)
        rows = query_records(self.catalog, query, level=level, kind=_check_kind(kind))
        if not rows:
            return empty_figure("The catalog has fewer than two distributions.", title)
        names = [row["name"] for row in rows]
        values = {
            row["name"]: dict(zip(row["others"], row["measures"], strict=True)) for row in rows
        }
        shown = [escape(name, 40) for name in names]
        trace = graph_objects().Heatmap(
            z=[[values[name].get(other) for other in names] for name in names],
            x=shown,
            y=shown,
            hovertemplate="%{y}<br>%{x}<br>%{z:.3f}<extra></extra>",
            texttemplate="%{z:.2f}" if len(names) <= _MAXIMUM_LABELLED else None,
            textfont_size=11,
            colorscale=_COLOUR_SCALE,
            reversescale=not similarity,
            xgap=1,
            ygap=1,
            hoverongaps=False,
            colorbar={"outlinewidth": 0, "thickness": 14},
        )
        figure = finish(
            graph_objects().Figure(trace),
            title,
            f"level {level:,}, {kind} distributions",
            height=max(240 + 34 * len(names), 320),
        )
        figure.update_xaxes(type="category", showgrid=False, tickangle=-35, ticks="")
        return figure.update_yaxes(type="category", autorange="reversed", showgrid=False, ticks="")

    def drops(self) -> go.Figure:
        """Draw the number of documents that each rule and dedup tier dropped, largest first.

        Documents that could not be read are included.

        Data: `SELECT stage, outcome, reason, rows, characters FROM accounting WHERE
        outcome IN ('dropped', 'failed')`.
        """
        query = """
            SELECT stage, outcome, reason, rows, characters, rows / (
                SELECT sum(rows) FROM accounting WHERE stage = 'source' AND outcome = 'read')
                AS share
            FROM accounting WHERE outcome IN ('dropped', 'failed') AND rows > 0
            ORDER BY rows DESC, stage, reason"""
        rows = query_records(self.catalog, query)
        title = "Dropped documents by rule"
        if not rows:
            return empty_figure("No documents were dropped.", title)
        figure = graph_objects().Figure()
        for outcome, colour in (("dropped", LINES[0]), ("failed", LINES[1])):
            bars = [row for row in rows if row["outcome"] == outcome]
            if not bars:
                continue
            figure.add_bar(
                orientation="h",
                x=[row["rows"] for row in bars],
                y=[f"{escape(row['reason'], 50)} ({escape(row['stage'])})" for row in bars],
                text=[f"{row['rows']:,}  {format_share(row['share'] or 0)}" for row in bars],
                customdata=[f"{format_count(row['characters'])} characters" for row in bars],
                hovertemplate="<b>%{y}</b><br>%{text} of the input<br>%{customdata}<extra></extra>",
                name=outcome,
                marker_color=colour,
                textposition="outside",
                cliponaxis=False,
            )
        order = [f"{escape(row['reason'], 50)} ({escape(row['stage'])})" for row in rows]
        finish(
            figure,
            title,
            "number of documents and share of the input",
            height=150 + 30 * len(rows),
        )
        figure.update_xaxes(title_text="documents", rangemode="tozero")
        figure.update_layout(margin_r=110, bargap=0.35)
        return figure.update_yaxes(
            type="category",
            categoryorder="array",
            categoryarray=order,
            autorange="reversed",
            showgrid=False,
        )


def _check_kind(kind: str) -> str:
    if kind not in ("hard", "distance"):
        raise UserError(f"kind {kind!r}: unknown. Expected 'hard' or 'distance'.")
    return kind
