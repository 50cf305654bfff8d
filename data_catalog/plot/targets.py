"""Figures of how sets of documents fall into the domains, and of what was dropped on the way."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from data_catalog.errors import UserError
from data_catalog.plot.look import (
    LINES,
    RAMP,
    Figures,
    drawable,
    finish,
    graph_objects,
    named,
    rows,
    sentence,
    share,
    short,
)
from data_catalog.untrusted import escape

if TYPE_CHECKING:
    import plotly.graph_objects as go

COLOURS = [[i / (len(RAMP) - 1), colour] for i, colour in enumerate(RAMP)]
WRITTEN = 20  # columns, or rows and columns, up to which each cell says its number
Kind = Literal["hard", "distance"]
MEASURES = {  # column of distribution_overlaps -> title, and whether more is more alike
    "overlap": ("Overlap: weight that two distributions share", True),
    "hellinger": ("Hellinger distance of distributions", False),
    "jensen_shannon": ("Jensen-Shannon divergence of distributions, nats", False),
}


class TargetFigures(Figures):
    """Where targets fall, how alike they are, and what rules and dedup took."""

    def distributions(self, level: int | None = None, kind: Kind = "hard") -> go.Figure:
        """Heat map: the weight of every domain (columns, in the order of the tree) in every distribution. `level` None: the coarsest.

        Data: `SELECT name, domain, weight FROM distributions WHERE level = 16 AND kind IN ('hard', 'natural', 'uniform')`, and the
        terms of `domains`.

        Raises:
            UserError: there is no such level or kind.
        """
        level = drawable(self.catalog, level, self.catalog.levels.granularities[0])
        query = """
            SELECT name, list(coalesce(weight, 0) ORDER BY domain) AS weights, list(domain ORDER BY domain) AS domains,
                   list(terms[1:4] ORDER BY domain) AS terms
            FROM (SELECT DISTINCT name, kind FROM distributions WHERE level = $level AND kind IN ($kind, 'natural', 'uniform'))
            CROSS JOIN (SELECT domain, terms FROM domains WHERE level = $level)
            LEFT JOIN (FROM distributions WHERE level = $level) USING (name, kind, domain)
            GROUP BY name, kind ORDER BY kind IN ('natural', 'uniform'), name"""
        found = rows(self.catalog, query, level=level, kind=_known(kind))
        title = f"Where targets fall: weight of {level:,} domains"
        if not found:
            return sentence("The catalog has no distributions.", title)
        names = [
            named(domain, terms)
            for domain, terms in zip(found[0]["domains"], found[0]["terms"], strict=True)
        ]
        weights = [row["weights"] for row in found]
        top = max(max(row) for row in weights) or 1.0
        ticks = [0.0, 0.25, 0.5, 0.75, 1.0]
        trace = graph_objects().Heatmap(
            # The root spreads small weights, which are many and matter.
            z=[[(weight / top) ** 0.5 for weight in row] for row in weights],
            x=found[0]["domains"],
            y=[escape(row["name"], 40) for row in found],
            text=[[share(weight) for weight in row] for row in weights],
            customdata=[names] * len(found),
            hovertemplate="%{y}<br><b>%{customdata}</b><br>weight %{text}<extra></extra>",
            texttemplate="%{text}" if level <= WRITTEN else None,
            textfont_size=11,
            colorscale=COLOURS,
            zmin=0,
            zmax=1,
            xgap=1 if level <= 128 else 0,
            ygap=1,
            colorbar={
                "tickvals": ticks,
                "ticktext": [share(top * at * at) for at in ticks],
                "outlinewidth": 0,
                "thickness": 14,
            },
        )
        note = "each row sums to 1; " + (
            "documents' own domains"
            if kind == "hard"
            else "documents spread over their nearest centroids"
        )
        note = f"domains of level {level:,} in the order of the tree; {note}"
        figure = finish(
            graph_objects().Figure(trace), title, note, height=max(180 + 30 * len(found), 260)
        )
        figure.update_xaxes(
            showgrid=False,
            dtick=1 if level <= 64 else None,
            title_text="" if level <= WRITTEN else "domain",
        )
        if level <= WRITTEN:
            words = [
                named(domain, terms, 2)
                for domain, terms in zip(found[0]["domains"], found[0]["terms"], strict=True)
            ]
            figure.update_xaxes(tickvals=found[0]["domains"], ticktext=words, tickangle=-35)
        return figure.update_yaxes(type="category", autorange="reversed", showgrid=False, ticks="")

    def overlaps(
        self, level: int | None = None, kind: Kind = "hard", measure: str = "overlap"
    ) -> go.Figure:
        """Heat map: how alike each two distributions are. `level` None: the coarsest.

        Data: `SELECT name, other, overlap FROM distribution_overlaps WHERE level = 16 AND kind = 'hard'`.

        Args:
            measure: `overlap`, 0 (no domain in common) to 1 (equal); `hellinger`, 0 (equal) to 1; `jensen_shannon`, nats, 0 (equal)
                to ln 2 = 0.693.

        Raises:
            UserError: there is no such level, kind or measure.
        """
        if measure not in MEASURES:
            raise UserError(f"measure {measure!r}: expected one of {', '.join(MEASURES)}")
        level = self.catalog.levels.granularities[0] if level is None else level
        self.catalog.levels.span(level)
        title, alike = MEASURES[measure]
        query = f"""
            SELECT name, list(other ORDER BY other) AS others, list({measure} ORDER BY other) AS measures
            FROM distribution_overlaps WHERE level = $level AND kind = $kind GROUP BY name ORDER BY name"""  # noqa: S608 (one of MEASURES)
        found = rows(self.catalog, query, level=level, kind=_known(kind))
        if not found:
            return sentence("The catalog has fewer than two distributions.", title)
        names = [row["name"] for row in found]
        of = {row["name"]: dict(zip(row["others"], row["measures"], strict=True)) for row in found}
        shown = [escape(name, 40) for name in names]
        trace = graph_objects().Heatmap(
            z=[[of[name].get(other) for other in names] for name in names],  # the diagonal is empty
            x=shown,
            y=shown,
            hovertemplate="%{y}<br>%{x}<br>%{z:.3f}<extra></extra>",
            texttemplate="%{z:.2f}" if len(names) <= WRITTEN else None,
            textfont_size=11,
            colorscale=COLOURS,
            reversescale=not alike,
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
        """Documents that each rule and tier of dedup took, and that could not be read, the most first.

        Data: `SELECT stage, outcome, reason, rows, characters FROM accounting WHERE outcome IN ('dropped', 'failed')`.
        """
        query = """
            SELECT stage, outcome, reason, rows, characters,
                   rows / (SELECT sum(rows) FROM accounting WHERE stage = 'source' AND outcome = 'read') AS share
            FROM accounting WHERE outcome IN ('dropped', 'failed') AND rows > 0 ORDER BY rows DESC, stage, reason"""
        found = rows(self.catalog, query)
        title = "What was dropped, by rule"
        if not found:
            return sentence("Nothing was dropped.", title)
        figure = graph_objects().Figure()
        for outcome, colour in (("dropped", LINES[0]), ("failed", LINES[1])):
            some = [row for row in found if row["outcome"] == outcome]
            if not some:
                continue
            figure.add_bar(
                orientation="h",
                x=[row["rows"] for row in some],
                y=[f"{escape(row['reason'], 50)} ({escape(row['stage'])})" for row in some],
                text=[f"{row['rows']:,}  {share(row['share'] or 0)}" for row in some],
                customdata=[f"{short(row['characters'])} characters" for row in some],
                hovertemplate="<b>%{y}</b><br>%{text} of what was read<br>%{customdata}<extra></extra>",
                name=outcome,
                marker_color=colour,
                textposition="outside",
                cliponaxis=False,
            )
        order = [f"{escape(row['reason'], 50)} ({escape(row['stage'])})" for row in found]
        finish(
            figure,
            title,
            "documents, and their share of what was read",
            height=150 + 30 * len(found),
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


def _known(kind: str) -> str:
    if kind not in ("hard", "distance"):
        raise UserError(f"kind {kind!r}: expected 'hard' or 'distance'")
    return kind
