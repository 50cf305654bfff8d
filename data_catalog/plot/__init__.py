"""Figures of an open catalog and of the runs it was opened with: `data_catalog.open(ROOT).plot`. They need the extra `notebook`."""

from data_catalog.plot.domains import DomainFigures
from data_catalog.plot.runs import RunFigures
from data_catalog.plot.targets import TargetFigures

__all__ = ["Plots"]


class Plots(DomainFigures, TargetFigures, RunFigures):
    """Every function returns a plotly figure, which a notebook shows; `.write_html("figure.html")` keeps it."""
