"""Figures of the runs that a catalog was opened with: losses, weights and scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from data_catalog.errors import UserError, suggestion
from data_catalog.plot.look import (
    FILLS,
    INK,
    LINES,
    MOST_DOMAINS,
    NEUTRAL,
    Figures,
    finish,
    graph_objects,
    line_style,
    named,
    rows,
    sentence,
)
from data_catalog.untrusted import escape

if TYPE_CHECKING:
    import plotly.graph_objects as go

TITLES = {
    "target/validation": "Target: validation split",
    "target/test": "Target: test split",
    "general": "General: held-out corpus text",
}
MOST_MEMBERS = 11  # of a basis with weights of their own; the others are one
DRAWN, LISTED = 6, 24  # members whose scores are drawn at first; that can be chosen in the legend

MIXTURE = """
    WITH chosen AS (SELECT * FROM runs WHERE run = $run),
    log AS (
        SELECT stage, first_sequence * sequence_tokens AS tokens, member, sampling,
               avg(sampling) OVER (PARTITION BY member) AS mean, basis, level
        FROM weights JOIN chosen USING (run)),
    named AS (
        SELECT log.*, dense_rank() OVER (ORDER BY mean DESC, member) AS rank, terms[1:3] AS terms
        FROM log LEFT JOIN domains AS d ON basis = 'domains' AND d.level = log.level AND d.domain = TRY_CAST(member AS BIGINT)),
    mixed AS (
        SELECT stage, sum(w.sampling * p.weight) AS weight
        FROM weights AS w JOIN chosen AS r USING (run) JOIN distributions AS p
        ON p.name = w.member AND p.level = least(r.level, $most) AND p.kind IN (r.config ->> '$.mixture.kind', w.member)
        WHERE r.basis <> 'domains' GROUP BY stage, p.domain),
    spread AS (  -- what not all members are known of is not known
        SELECT stage, CASE WHEN abs(sum(weight) - 1) < 0.01 THEN exp(-sum(weight * ln(weight))) END AS effective_domains
        FROM mixed WHERE weight > 0 GROUP BY stage),
    members AS (
        SELECT stage, count(*) AS members, exp(-sum(sampling * ln(sampling)) FILTER (sampling > 0)) AS effective_members
        FROM log GROUP BY stage)
    SELECT stage, tokens, CASE WHEN rank <= $members THEN member END AS member, any_value(terms) FILTER (rank <= $members) AS terms,
           sum(sampling) AS weight, min(rank) AS place, any_value(members) AS members, any_value(effective_members) AS effective_members,
           any_value(CASE WHEN basis = 'domains' THEN effective_members ELSE effective_domains END) AS effective_domains
    FROM named JOIN members USING (stage) LEFT JOIN spread USING (stage)
    GROUP BY stage, tokens, CASE WHEN rank <= $members THEN member END ORDER BY place, stage"""


class RunFigures(Figures):
    """What runs on the catalog did: open it with `runs=[...]`."""

    def losses(self, held_out: Sequence[str] = ("target/validation", "general")) -> go.Figure:
        """Held-out losses while training, a line a run and a panel a set, with standard errors over sequences.

        The axis leaves out what is above the losses after a tenth of the run: the fall from random weights would flatten the rest.

        Data: `SELECT run, held_out, tokens, loss, error FROM metrics WHERE kind = 'eval'`.

        Raises:
            UserError: the catalog was opened without runs, or none has measured these sets.
        """
        query = """
            SELECT run, held_out, tokens, loss, error FROM metrics
            WHERE kind = 'eval' AND loss IS NOT NULL AND list_contains($sets, held_out) ORDER BY run, held_out, tokens"""
        sets = [held_out] if isinstance(held_out, str) else list(held_out)
        found = rows(self.catalog, query, sets=sets)
        if not found:
            known = [
                row["held_out"]
                for row in rows(
                    self.catalog,
                    "SELECT DISTINCT held_out FROM metrics WHERE kind = 'eval' ORDER BY 1",
                )
            ]
            raise UserError(
                f"sets {', '.join(sets)}: no run has measured them; {suggestion(sets[0] if sets else '', known, 'measured are')}"
            )
        import plotly.subplots  # noqa: PLC0415

        sets = [name for name in sets if any(row["held_out"] == name for row in found)]
        runs = list(dict.fromkeys(row["run"] for row in found))
        titles = [TITLES.get(name, escape(name)) for name in sets]
        figure = plotly.subplots.make_subplots(
            cols=len(sets), subplot_titles=titles, horizontal_spacing=0.09
        )
        for column, name in enumerate(sets, 1):
            panel = [row for row in found if row["held_out"] == name]
            for number, run in enumerate(runs):
                curve = [row for row in panel if row["run"] == run]
                figure.add_scatter(
                    **_curve(curve, "tokens", "loss"),
                    name=escape(run, 50),
                    legendgroup=str(number),
                    showlegend=column == 1,
                    hovertemplate="%{y:.3f} ± %{customdata} at %{x:,} tokens",
                    row=1,
                    col=column,
                    **line_style(number),
                )
            figure.update_yaxes(range=_visible(panel), row=1, col=column)
        finish(figure, "Held-out losses", "± standard error over sequences", height=560)
        figure.update_layout(
            legend={"orientation": "h", "y": -0.22, "yanchor": "top"},
            margin={"t": 100, "b": 60 + 22 * -(-len(runs) // 3)},
        )
        figure.update_xaxes(title_text="training tokens", rangemode="tozero")
        return figure.update_yaxes(title_text="loss, nats a token", col=1)

    def weights(self, run: str | None = None) -> go.Figure:
        """What a run draws over time: the shares of its basis members, stacked, and below how many equal members or domains that is.

        Members beyond the eleven with most weight are drawn as one. The effective number is the exponential of the entropy; that of
        domains is of the run's level, or of 4,096.

        Data: `SELECT stage, first_sequence, member, sampling FROM weights WHERE run = 'NAME'`, mixed with `distributions` as on the
        page about SQL.

        Raises:
            UserError: there is no such run, or there are several and none is named.
        """
        about = self._chosen(run)
        most = max(
            k
            for k in self.catalog.levels.granularities
            if k <= MOST_DOMAINS or k == self.catalog.levels.granularities[0]
        )
        found = rows(self.catalog, MIXTURE, run=about["run"], most=most, members=MOST_MEMBERS)
        title = f"Weights of {escape(about['run'], 60)}"
        if not found:
            return sentence("The run has not written any weights yet.", title)
        import plotly.subplots  # noqa: PLC0415

        figure = plotly.subplots.make_subplots(
            rows=2, shared_xaxes=True, row_heights=[0.68, 0.32], vertical_spacing=0.06
        )
        last = about["tokens"] or 0
        for number, member in enumerate(dict.fromkeys(row["member"] for row in found)):
            curve = [row for row in found if row["member"] == member]
            others = curve[0]["members"] - MOST_MEMBERS
            hatched = number >= len(FILLS) and member is not None
            name = f"{others:,} others" if member is None else _member(curve[0])
            figure.add_scatter(
                **_steps(curve, "weight", last),
                name=name,
                mode="lines",
                stackgroup="weights",
                line={"width": 0.5, "color": "#ffffff", "shape": "hv"},
                fillcolor=NEUTRAL if member is None else FILLS[number % len(FILLS)],
                fillpattern={
                    "shape": "/" if hatched else "",
                    "fillmode": "overlay",
                    "fgcolor": INK,
                    "size": 7,
                },
                hovertemplate="%{y:.1%}",
                row=1,
                col=1,
            )
        stages = [row for row in found if row["place"] == 1]
        for number, column in enumerate(("effective_domains", "effective_members")):
            if any(row[column] is not None for row in stages):
                line = {
                    "color": LINES[number],
                    "dash": "solid" if number == 0 else "dash",
                    "shape": "hv",
                    "width": 2,
                }
                kept = {
                    "name": column.replace("_", " "),
                    "mode": "lines",
                    "line": line,
                    "hovertemplate": "%{y:.1f}",
                    "legend": "legend2",
                }
                figure.add_scatter(**_steps(stages, column, last), **kept, row=2, col=1)
        finish(
            figure,
            title,
            f"{escape(about['mixer'])} toward {escape(about['target'])}: share of the tokens drawn",
            height=640,
        )
        figure.update_layout(
            hovermode="x unified",
            legend={"traceorder": "reversed"},
            legend2={"y": 0.3, "yanchor": "top"},
        )
        figure.update_yaxes(title_text="share", range=[0, 1], tickformat=".0%", row=1)
        figure.update_yaxes(title_text="effective number", type="log", nticks=4, row=2)
        return figure.update_xaxes(title_text="training tokens", row=2)

    def scores(self, run: str | None = None) -> go.Figure:
        """What a mixer that learns has measured of its members, with standard errors: alignments, or losses where it has no scores.

        The six members with the highest mean are drawn; further ones can be chosen in the legend.

        Data: `SELECT step, member, score, error, loss FROM scores WHERE run = 'NAME' ORDER BY step`.

        Raises:
            UserError: there is no such run, or there are several and none is named.
        """
        about = self._chosen(run)
        query = """
            WITH all_scores AS (SELECT *, bool_or(score IS NOT NULL) OVER () AS scored FROM scores WHERE run = $run),
            found AS (
                SELECT step, member, scored, CASE WHEN scored THEN score ELSE loss END AS value, CASE WHEN scored THEN error END AS error,
                       avg(value) OVER (PARTITION BY member) AS mean
                FROM all_scores WHERE value IS NOT NULL)
            SELECT found.*, d.terms[1:3] AS terms, dense_rank() OVER (ORDER BY mean DESC, member) AS place
            FROM found LEFT JOIN domains AS d ON $basis = 'domains' AND d.level = $level AND d.domain = TRY_CAST(member AS BIGINT)
            QUALIFY place <= $most ORDER BY place, step"""
        named_run = {
            "run": about["run"],
            "basis": about["basis"],
            "level": about["level"],
            "most": LISTED,
        }
        found = (
            rows(self.catalog, query, **named_run) if "scores" in set(self.catalog.views) else []
        )
        title = f"Scores of {escape(about['run'], 60)}"
        if not found:
            return sentence(f"The mixer {escape(about['mixer'])} has measured nothing.", title)
        figure = graph_objects().Figure()
        for number, member in enumerate(dict.fromkeys(row["member"] for row in found)):
            curve = [row for row in found if row["member"] == member]
            shown = {
                "visible": True if number < DRAWN else "legendonly",
                "hovertemplate": "%{y:.3g} ± %{customdata} after %{x:,} steps",
            }
            figure.add_scatter(
                **_curve(curve, "step", "value"),
                name=_member(curve[0]),
                **shown,
                **line_style(number),
            )
        scored = found[0]["scored"]
        errors = (
            "± standard error over sequences"
            if any(row["error"] is not None for row in found)
            else "its standard errors are not known"
        )
        finish(
            figure,
            title,
            f"{escape(about['mixer'])} toward {escape(about['target'])}: {errors}",
            height=520,
        )
        figure.update_xaxes(title_text="steps done")
        return figure.update_yaxes(
            title_text="alignment with the target" if scored else "loss, nats a token"
        )

    def _chosen(self, run: str | None) -> Mapping[str, Any]:
        """The row of `runs` of the named run, or of the only one.

        Raises:
            UserError: there is no such run, or there are several and none is named, or the catalog was opened without runs.
        """
        found = {
            row["run"]: row
            for row in rows(
                self.catalog,
                "SELECT run, mixer, target, basis, level, tokens FROM runs ORDER BY run",
            )
        }
        if run is None and len(found) == 1:
            return next(iter(found.values()))
        if run is None:
            raise UserError(f"run: there are {len(found)}; name one of {', '.join(found)}")
        if run not in found:
            raise UserError(
                f"run {run!r}: not among those that the catalog was opened with; {suggestion(run, found)}"
            )
        return found[run]


def _member(row: Mapping[str, Any]) -> str:
    """A basis member's name; of a domain, its number and terms."""
    return named(row["member"], row["terms"], 3) if row["terms"] else escape(row["member"], 40)


def _curve(curve: Sequence[Mapping[str, Any]], x: str, y: str) -> dict[str, Any]:
    """A line with its standard errors."""
    errors = [row["error"] for row in curve]
    bars = (
        {"error_y": {"array": [error or 0 for error in errors], "thickness": 1, "width": 2}}
        if any(errors)
        else {}
    )
    said = ["not known" if error is None else f"{error:.2g}" for error in errors]
    return {
        "x": [row[x] for row in curve],
        "y": [row[y] for row in curve],
        "customdata": said,
        "mode": "lines+markers",
        **bars,
    }


def _steps(curve: Sequence[Mapping[str, Any]], column: str, last: int) -> dict[str, list[Any]]:
    """Values that hold from the tokens of their stage to those of the next; the last one to the end of the run."""
    end = max(last, curve[-1]["tokens"])
    return {
        "x": [*(row["tokens"] for row in curve), end],
        "y": [*(row[column] for row in curve), curve[-1][column]],
    }


def _visible(panel: Sequence[Mapping[str, Any]]) -> list[float] | None:
    """From the lowest loss to the highest after a tenth of the tokens, with room for error bars; None: everything."""
    late = [
        row
        for row in panel
        if row["tokens"] and row["tokens"] >= max(other["tokens"] or 0 for other in panel) / 10
    ]
    if not late:
        return None
    low, high = (
        pick(row["loss"] + sign * (row["error"] or 0) for row in late)
        for pick, sign in ((min, -1), (max, 1))
    )
    room = 0.04 * (high - low) or 0.1
    return [low - room, high + room]
