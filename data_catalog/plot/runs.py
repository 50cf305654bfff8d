"""Figures of training runs: losses, weights and scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from data_catalog.errors import UserError, suggestion
from data_catalog.plot.look import (
    FILLS,
    INK,
    LINES,
    NEUTRAL,
    Figures,
    domain_label,
    empty_figure,
    finest_drawable,
    finish,
    graph_objects,
    line_style,
    query_records,
)
from data_catalog.plot.run_queries import MIXTURE_QUERY, SCORES_QUERY
from data_catalog.queryable import view_names
from data_catalog.untrusted import escape

if TYPE_CHECKING:
    import plotly.graph_objects as go

_TITLES = {
    "target/validation": "Target: validation split",
    "target/test": "Target: test split",
    "general": "General: held-out corpus text",
}
_MAXIMUM_MEMBERS = 11  # members with their own band; the others share one
_SHOWN_MEMBERS, _LISTED_MEMBERS = 6, 24  # visible at first, and listed in the legend


class RunFigures(Figures):
    """Figures of the runs that a catalog was opened with, as `runs=[...]`."""

    def losses(self, held_out: Sequence[str] = ("target/validation", "general")) -> go.Figure:
        """Draw held-out losses during training: a line per run, a panel per document set.

        Error bars are standard errors over sequences. The axis ends at the largest loss after a
        tenth of the run, because the initial losses would flatten the rest.

        Data: `SELECT run, held_out, tokens, loss, error FROM metrics WHERE kind = 'eval'`.

        Args:
            held_out: Names of the document sets, as in the column `held_out`.

        Raises:
            UserError: The catalog was opened without runs, or no run has evaluated these sets.
        """
        query = """
            SELECT run, held_out, tokens, loss, error FROM metrics
            WHERE kind = 'eval' AND loss IS NOT NULL AND list_contains($sets, held_out)
            ORDER BY run, held_out, tokens"""
        sets = [held_out] if isinstance(held_out, str) else list(held_out)
        rows = query_records(self.catalog, query, sets=sets)
        if not rows:
            query = "SELECT DISTINCT held_out FROM metrics WHERE kind = 'eval' ORDER BY 1"
            known = [row["held_out"] for row in query_records(self.catalog, query)]
            hint = suggestion(sets[0] if sets else "", known, "Evaluated sets")
            raise UserError(f"held_out {', '.join(sets)}: not evaluated by any run. {hint}")
        import plotly.subplots  # noqa: PLC0415

        sets = [name for name in sets if any(row["held_out"] == name for row in rows)]
        runs = list(dict.fromkeys(row["run"] for row in rows))
        titles = [_TITLES.get(name, escape(name)) for name in sets]
        figure = plotly.subplots.make_subplots(
            cols=len(sets), subplot_titles=titles, horizontal_spacing=0.09
        )
        for column, name in enumerate(sets, 1):
            panel = [row for row in rows if row["held_out"] == name]
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
            figure.update_yaxes(range=_visible_range(panel), row=1, col=column)
        finish(figure, "Held-out losses", "± standard error over sequences", height=560)
        figure.update_layout(
            legend={"orientation": "h", "y": -0.22, "yanchor": "top"},
            margin={"t": 100, "b": 60 + 22 * -(-len(runs) // 3)},
        )
        figure.update_xaxes(title_text="training tokens", rangemode="tozero")
        return figure.update_yaxes(title_text="loss, nats per token", col=1)

    def weights(self, run: str | None = None) -> go.Figure:
        """Draw the mixture of a run over time, and its effective number of members and domains.

        Members beyond the eleven largest are drawn as one. The effective number is the exponential
        of the entropy. For domains, it refers to the run's level, or to the finest level of up to
        4,096 domains.

        Data: `SELECT interval, first_sequence, member, sampling FROM weights WHERE run = 'NAME'`,
        mixed with `distributions` as in docs/sql.md.

        Args:
            run: Name of the run. May be omitted if there is only one.

        Raises:
            UserError: There is no such run, or there are several and none is named.
        """
        chosen = self._choose_run(run)
        rows = query_records(
            self.catalog,
            MIXTURE_QUERY,
            run=chosen["run"],
            finest=finest_drawable(self.files.levels),
            members=_MAXIMUM_MEMBERS,
        )
        title = f"Weights of {escape(chosen['run'], 60)}"
        if not rows:
            return empty_figure("The run has not written any weights yet.", title)
        import plotly.subplots  # noqa: PLC0415

        figure = plotly.subplots.make_subplots(
            rows=2, shared_xaxes=True, row_heights=[0.68, 0.32], vertical_spacing=0.06
        )
        last = chosen["tokens"] or 0
        for number, member in enumerate(dict.fromkeys(row["member"] for row in rows)):
            curve = [row for row in rows if row["member"] == member]
            others = curve[0]["members"] - _MAXIMUM_MEMBERS
            hatched = number >= len(FILLS) and member is not None
            name = f"{others:,} others" if member is None else _member_label(curve[0])
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
        intervals = [row for row in rows if row["place"] == 1]
        for number, column in enumerate(("effective_domains", "effective_members")):
            if any(row[column] is not None for row in intervals):
                line = {
                    "color": LINES[number],
                    "dash": "solid" if number == 0 else "dash",
                    "shape": "hv",
                    "width": 2,
                }
                style = {
                    "name": column.replace("_", " "),
                    "mode": "lines",
                    "line": line,
                    "hovertemplate": "%{y:.1f}",
                    "legend": "legend2",
                }
                figure.add_scatter(**_steps(intervals, column, last), **style, row=2, col=1)
        finish(
            figure,
            title,
            f"{_goal(chosen)}: share of sampled tokens",
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
        """Draw the alignments that a mixer has measured, or the losses if it has no alignments.

        The six members with the highest mean are visible at first. Others can be selected in the
        legend.

        Data: `SELECT step, member, score, error, loss FROM scores WHERE run = 'NAME'
        ORDER BY step`.

        Args:
            run: Name of the run. May be omitted if there is only one.

        Raises:
            UserError: There is no such run, or there are several and none is named.
        """
        chosen = self._choose_run(run)
        parameters = {key: chosen[key] for key in ("run", "basis", "level")}
        rows = (
            query_records(self.catalog, SCORES_QUERY, **parameters, limit=_LISTED_MEMBERS)
            if "scores" in view_names(self.catalog)
            else []
        )
        title = f"Scores of {escape(chosen['run'], 60)}"
        if not rows:
            text = f"The mixer {escape(chosen['mixer'])} has no measurements."
            return empty_figure(text, title)
        figure = graph_objects().Figure()
        for number, member in enumerate(dict.fromkeys(row["member"] for row in rows)):
            curve = [row for row in rows if row["member"] == member]
            shown = {
                "visible": True if number < _SHOWN_MEMBERS else "legendonly",
                "hovertemplate": "%{y:.3g} ± %{customdata} after %{x:,} steps",
            }
            figure.add_scatter(
                **_curve(curve, "step", "value"),
                name=_member_label(curve[0]),
                **shown,
                **line_style(number),
            )
        scored = rows[0]["scored"]
        errors = (
            "± standard error over sequences"
            if any(row["error"] is not None for row in rows)
            else "standard errors are unknown"
        )
        finish(
            figure,
            title,
            f"{_goal(chosen)}: {errors}",
            height=520,
        )
        figure.update_xaxes(title_text="steps")
        return figure.update_yaxes(
            title_text="alignment with the target" if scored else "loss, nats per token"
        )

    def _choose_run(self, run: str | None) -> Mapping[str, Any]:
        """Return the row of `runs` of the named run, or of the only one.

        Raises:
            UserError: There is no such run, there are several and none is named, or the catalog was
                opened without runs.
        """
        query = "SELECT run, mixer, target, basis, level, tokens FROM runs ORDER BY run"
        runs = {row["run"]: row for row in query_records(self.catalog, query)}
        if run is None and len(runs) == 1:
            return next(iter(runs.values()))
        if run is None:
            raise UserError(f"run: missing. The catalog has {len(runs)} runs: {', '.join(runs)}.")
        if run not in runs:
            raise UserError(
                f"run {run!r}: the catalog was opened without it. "
                f"{suggestion(run, runs, 'Known runs')}"
            )
        return runs[run]


def _goal(run: Mapping[str, Any]) -> str:
    return f"{escape(run['mixer'])} for the target {escape(run['target'])}"


def _member_label(row: Mapping[str, Any]) -> str:
    """Return the name of a basis member. For a domain, it consists of its number and terms."""
    if row["terms"]:
        return domain_label(row["member"], row["terms"], 3)
    return escape(row["member"], 40)


def _curve(curve: Sequence[Mapping[str, Any]], x: str, y: str) -> dict[str, Any]:
    """Return the properties of a line with its standard errors."""
    errors = [row["error"] for row in curve]
    bars = (
        {"error_y": {"array": [error or 0 for error in errors], "thickness": 1, "width": 2}}
        if any(errors)
        else {}
    )
    texts = ["unknown" if error is None else f"{error:.2g}" for error in errors]
    return {
        "x": [row[x] for row in curve],
        "y": [row[y] for row in curve],
        "customdata": texts,
        "mode": "lines+markers",
        **bars,
    }


def _steps(curve: Sequence[Mapping[str, Any]], column: str, last: int) -> dict[str, list[Any]]:
    """Return a step function: each value holds until the next interval or the end of the run."""
    end = max(last, curve[-1]["tokens"])
    return {
        "x": [*(row["tokens"] for row in curve), end],
        "y": [*(row[column] for row in curve), curve[-1][column]],
    }


def _visible_range(panel: Sequence[Mapping[str, Any]]) -> list[float] | None:
    """Return the range of the losses after a tenth of the tokens, including error bars.

    Returns:
        None if there are no such losses. The axis then shows everything.
    """
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
