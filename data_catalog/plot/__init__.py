"""Figures of an open catalog and of its runs: `data_catalog.open(ROOT).plot`.

They need the extra `notebook`.
"""

from data_catalog.plot.domains import DomainFigures
from data_catalog.plot.runs import RunFigures
from data_catalog.plot.targets import TargetFigures

__all__ = ["Plots"]


class Plots(DomainFigures, TargetFigures, RunFigures):
    """All figures.

    Every method returns a plotly figure. Notebooks display it, and `.write_html("figure.html")`
    saves it.
    """
