"""Colours of domains in a treemap or on a map.

Numbers are shown on a ramp. Sources of documents are shown as categories.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from data_catalog.dropped_shares import DROPPED_SHARES
from data_catalog.errors import UserError, suggestion
from data_catalog.format.layout import Levels
from data_catalog.plot.look import FILLS, NEUTRAL, RAMP, SOFT, format_share, query_records
from data_catalog.queryable import Queryable, view_names
from data_catalog.untrusted import escape

DEFAULT_FILL = RAMP[1]
NO_VALUE = -0.004  # position below the ramp for domains without a value
_MAXIMUM_CATEGORIES = 7  # sources with their own colour

# Queries of level, domain and value, by name of the colour.
_VALUES = {
    None: "SELECT level, domain, NULL AS value FROM domains",
    "source": "SELECT level, domain, top_sources[1].name AS value FROM domains",
    "distance": "SELECT level, domain, mean_distance AS value FROM domains",
    "quality": DROPPED_SHARES,
}
_WEIGHT = """
    SELECT level, domain, weight AS value FROM distributions
    WHERE name = $name AND kind IN ($kind, $name)"""
_SIGNAL = """
    SELECT k.level AS level, leaf // ($leaves // k.level) AS domain,
           avg(signals[$name]) FILTER (isfinite(signals[$name])) AS value
    FROM documents, unnest($levels) AS k(level) GROUP BY ALL"""
_DISTRIBUTION_NAMES = "SELECT DISTINCT name FROM distributions ORDER BY name"
_SIGNAL_NAMES = """
    SELECT DISTINCT unnest(map_keys(signals)) AS name
    FROM (SELECT signals FROM documents LIMIT 1000) ORDER BY name"""
_TITLES = {
    None: "",
    "source": "main source",
    "distance": "mean distance to the leaf's centroid",
    "quality": "share of its sources that was dropped",
}


@dataclass(frozen=True)
class Colouring:
    """Domains of some levels with the values that determine their colours."""

    rows: Sequence[Mapping[str, Any]]
    """One row per domain, with its `value`."""
    title: str
    """Name of the value, as markup. Empty if domains have no value."""
    write: Callable[[Any], str]
    """Formats a value as markup."""
    categories: bool
    """True if values are names of sources, not numbers."""
    square_root: bool
    """True if the ramp shows square roots, which spreads small values."""

    def fills(self, level: int) -> dict[str, str]:
        """Return a colour for each of the sources with the most tokens of a level."""
        tokens: Counter[str] = Counter()
        for row in self.rows:
            if row["level"] == level and row["value"] is not None:
                tokens[row["value"]] += row["tokens"] or 0
        chosen = sorted(tokens, key=lambda name: (-tokens[name], name))[:_MAXIMUM_CATEGORIES]
        return dict(zip(chosen, FILLS, strict=False))

    def ends(self, level: int) -> tuple[float, float]:
        """Return the values at the ends of the ramp.

        Without `square_root`, the outer 2 % of the values on either side are ignored.
        """
        known = sorted(
            row["value"] for row in self.rows if row["level"] == level and row["value"] is not None
        )
        if self.square_root or not known:
            return 0.0, known[-1] if known else 0.0
        cut = int(0.02 * len(known))
        return known[cut], known[-1 - cut]

    def places(self, level: int) -> Callable[[Any], float]:
        """Return a function from values to positions on the ramp, from 0 to 1.

        It returns `NO_VALUE` for None.
        """
        low, high = self.ends(level)

        def place(value: float | None) -> float:
            if value is None:
                return NO_VALUE
            unit = min(max((value - low) / (high - low), 0.0), 1.0) if high > low else 0.0
            return math.sqrt(unit) if self.square_root else unit

        return place

    def scale(self, level: int) -> dict[str, Any]:
        """Return the ramp and its legend, for plotly's markers."""
        low, high = self.ends(level)
        # On plotly's own scale, between NO_VALUE and the lowest value.
        floor = -NO_VALUE / 2 / (1 - NO_VALUE)
        stops = [
            [floor + (1 - floor) * i / (len(RAMP) - 1), colour] for i, colour in enumerate(RAMP)
        ]
        ticks = [0.0, 0.25, 0.5, 0.75, 1.0] if high > low else [0.0]
        words = [
            self.write(low + (high - low) * (at * at if self.square_root else at)) for at in ticks
        ]
        return {
            "colorscale": [[0.0, NEUTRAL], [floor, NEUTRAL], *stops],
            "cmin": NO_VALUE,
            "cmax": 1.0,
            "showscale": True,
            "colorbar": {
                **{"tickvals": ticks, "ticktext": words, "outlinewidth": 0, "thickness": 14},
                "title": {"text": self.title, "side": "right", "font": {"color": SOFT, "size": 13}},
            },
        }

    def legend(self, level: int) -> str:
        """Return the names of the categories with their colours, as markup."""
        fills = self.fills(level)
        names = [(colour, escape(name, 40)) for name, colour in fills.items()] + [
            (NEUTRAL, "other or unknown")
        ]
        keys = [f"<span style='color:{colour}'>■</span> {name}" for colour, name in names]
        first, second = " · ".join(keys[:4]), " · ".join(keys[4:])
        return f"{self.title}: {first}{'<br>' if second else ''}{second}"


def read_colouring(
    catalog: Queryable, tree: Levels, levels: Sequence[int], colour: str | None, kind: str
) -> Colouring:
    """Return the domains of some levels, by level and number, with the values of a colour.

    Args:
        catalog: The open catalog.
        tree: All levels of the catalog.
        levels: Levels to return.
        colour: Colour, as in `DomainFigures.treemap`.
        kind: Kind of a target's distribution, `hard` or `distance`.

    Raises:
        UserError: There is no such colour or kind.
    """
    if kind not in ("hard", "distance"):
        raise UserError(f"kind {kind!r}: unknown. Expected 'hard' or 'distance'.")
    values = _VALUES.get(colour, _WEIGHT)
    parameters: dict[str, Any] = {}
    known = colour in _VALUES
    names = [] if known else _names(catalog, _DISTRIBUTION_NAMES, "distributions")
    signals = [] if known or colour in names else _names(catalog, _SIGNAL_NAMES, "documents")
    if colour in names:
        parameters = {"name": colour, "kind": kind}
    elif colour in signals:
        values, parameters = _SIGNAL, {"name": colour, "leaves": tree.leaves}
    elif not known:
        hint = suggestion(str(colour), [*(name for name in _VALUES if name), *names, *signals])
        raise UserError(
            f"colour {colour!r}: not a distribution, signal or property of domains. {hint}"
        )
    query = f"""
        SELECT level, domain, documents, tokens, terms[1:8] AS terms, v.value
        FROM domains LEFT JOIN ({values}) AS v USING (level, domain)
        WHERE list_contains($levels, level) ORDER BY level, domain"""  # noqa: S608 (one of the queries above)
    rows = query_records(catalog, query, levels=list(levels), **parameters)
    weights = colour in names
    return Colouring(
        [{**row, "value": row["value"] or 0.0} for row in rows] if weights else rows,
        title=_title(colour, weights),
        write=_writer(colour, weights),
        categories=colour == "source",
        square_root=weights or colour == "quality",
    )


def _names(catalog: Queryable, query: str, view: str) -> list[str]:
    if view not in view_names(catalog):
        return []
    return [row["name"] for row in query_records(catalog, query)]


def _title(colour: str | None, weights: bool) -> str:
    if weights:
        return f"weight in {escape(colour, 40)}"
    return _TITLES[colour] if colour in _TITLES else f"mean {escape(colour, 60)}"


def _writer(colour: str | None, weights: bool) -> Callable[[Any], str]:
    if weights or colour == "quality":
        return lambda value: "unknown" if value is None else format_share(value)
    if colour == "source":
        return lambda value: "unknown" if value is None else escape(value, 60)
    return lambda value: "unknown" if value is None else f"{value:.3g}"
