"""What colour a domain has in a treemap or on a map: a ramp for numbers, categories for where documents come from."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from data_catalog.errors import UserError, suggestion
from data_catalog.plot.look import FILLS, NEUTRAL, RAMP, SOFT, rows, share
from data_catalog.query.dropped import DROPPED_SHARES
from data_catalog.untrusted import escape

if TYPE_CHECKING:
    from data_catalog.query.database import Catalog

PLAIN = RAMP[1]
CATEGORIES = 7  # sources with a colour of their own
MARGIN = 0.004  # of the ramp, below its lowest value: for what has no value

VALUES = {  # a query of (level, domain, value)
    None: "SELECT level, domain, NULL AS value FROM domains",
    "source": "SELECT level, domain, top_sources[1].name AS value FROM domains",
    "distance": "SELECT level, domain, mean_distance AS value FROM domains",
    "quality": DROPPED_SHARES,
}
WEIGHT = "SELECT level, domain, weight AS value FROM distributions WHERE name = $name AND kind IN ($kind, $name)"
SIGNAL = """
    SELECT k.level AS level, leaf // ($leaves // k.level) AS domain, avg(signals[$name]) FILTER (isfinite(signals[$name])) AS value
    FROM documents, unnest($levels) AS k(level) GROUP BY ALL"""
NAMES = "SELECT DISTINCT name FROM distributions ORDER BY name"
SIGNALS = "SELECT DISTINCT unnest(map_keys(signals)) AS name FROM (SELECT signals FROM documents LIMIT 1000) ORDER BY name"
TITLES = {
    None: "",
    "source": "main source",
    "distance": "mean distance to the leaf's centroid",
    "quality": "share dropped of its sources",
}


@dataclass(frozen=True)
class Colouring:
    """The domains of some levels, each row with a `value` by which it is coloured."""

    rows: Sequence[Mapping[str, Any]]
    title: str  # of what the value is, markup; empty: there is none
    write: Callable[[Any], str]  # a value as markup
    categories: bool
    rooted: bool  # small values are many and matter: the root spreads them

    def fills(self, level: int) -> dict[str, str]:
        """A colour for each of the sources that have most tokens of a level."""
        tokens: Counter[str] = Counter()
        for row in self.rows:
            if row["level"] == level and row["value"] is not None:
                tokens[row["value"]] += row["tokens"] or 0
        chosen = sorted(tokens, key=lambda name: (-tokens[name], name))[:CATEGORIES]
        return dict(zip(chosen, FILLS, strict=False))

    def ends(self, level: int) -> tuple[float, float]:
        """The lowest and the highest value of a level; of those that are not rooted, without the outer 2 % on either side."""
        known = sorted(
            row["value"] for row in self.rows if row["level"] == level and row["value"] is not None
        )
        if self.rooted or not known:
            return 0.0, known[-1] if known else 0.0
        cut = int(0.02 * len(known))
        return known[cut], known[-1 - cut]

    def places(self, level: int) -> Callable[[Any], float]:
        """From values to places on the ramp, 0 to 1; -MARGIN for no value."""
        low, high = self.ends(level)

        def place(value: float | None) -> float:
            if value is None:
                return -MARGIN
            unit = min(max((value - low) / (high - low), 0.0), 1.0) if high > low else 0.0
            return math.sqrt(unit) if self.rooted else unit

        return place

    def scale(self, level: int) -> dict[str, Any]:
        """The ramp and its legend, for plotly's markers."""
        low, high = self.ends(level)
        floor = (
            MARGIN / 2 / (1 + MARGIN)
        )  # on plotly's own scale, between what has no value and the lowest
        stops = [
            [floor + (1 - floor) * i / (len(RAMP) - 1), colour] for i, colour in enumerate(RAMP)
        ]
        ticks = [0.0, 0.25, 0.5, 0.75, 1.0] if high > low else [0.0]
        words = [self.write(low + (high - low) * (at * at if self.rooted else at)) for at in ticks]
        return {
            "colorscale": [[0.0, NEUTRAL], [floor, NEUTRAL], *stops],
            "cmin": -MARGIN,
            "cmax": 1.0,
            "showscale": True,
            "colorbar": {
                **{"tickvals": ticks, "ticktext": words, "outlinewidth": 0, "thickness": 14},
                "title": {"text": self.title, "side": "right", "font": {"color": SOFT, "size": 13}},
            },
        }

    def legend(self, level: int) -> str:
        """The names of the categories, each with its colour, as markup."""
        fills = self.fills(level)
        names = [(colour, escape(name, 40)) for name, colour in fills.items()] + [
            (NEUTRAL, "other or not named")
        ]
        keys = [f"<span style='color:{colour}'>■</span> {name}" for colour, name in names]
        return f"{self.title}: {' · '.join(keys[:4])}{'<br>' if keys[4:] else ''}{' · '.join(keys[4:])}"


def colouring(catalog: Catalog, levels: Sequence[int], colour: str | None, kind: str) -> Colouring:
    """The domains of these levels, by level and number, with the values that `colour` names; see `DomainFigures.treemap`.

    Raises:
        UserError: there is no such colour or kind.
    """
    if kind not in ("hard", "distance"):
        raise UserError(f"kind {kind!r}: expected 'hard' or 'distance'")
    values = VALUES.get(colour, WEIGHT)
    given: dict[str, Any] = {}
    names = [] if colour in VALUES else _names(catalog, NAMES, "distributions")
    signals = [] if colour in VALUES or colour in names else _names(catalog, SIGNALS, "documents")
    if colour in names:
        given = {"name": colour, "kind": kind}
    elif colour in signals:
        values, given = SIGNAL, {"name": colour, "leaves": catalog.levels.leaves}
    elif colour not in VALUES:
        known = [*(name for name in VALUES if name), *names, *signals]
        raise UserError(
            f"colour {colour!r}: no distribution, quality signal or property of domains; {suggestion(str(colour), known)}"
        )
    query = f"""
        SELECT level, domain, documents, tokens, terms[1:8] AS terms, v.value
        FROM domains LEFT JOIN ({values}) AS v USING (level, domain)
        WHERE list_contains($levels, level) ORDER BY level, domain"""  # noqa: S608 (one of the queries above)
    found = rows(catalog, query, levels=list(levels), **given)
    weights = colour in names
    return Colouring(
        [{**row, "value": row["value"] or 0.0} for row in found] if weights else found,
        title=_title(colour, weights),
        write=_writer(colour, weights),
        categories=colour == "source",
        rooted=weights or colour == "quality",
    )


def _names(catalog: Catalog, query: str, view: str) -> list[str]:
    return [row["name"] for row in rows(catalog, query)] if view in set(catalog.views) else []


def _title(colour: str | None, weights: bool) -> str:
    if weights:
        return f"weight in {escape(colour, 40)}"
    return TITLES[colour] if colour in TITLES else f"mean {escape(colour, 60)}"


def _writer(colour: str | None, weights: bool) -> Callable[[Any], str]:
    if weights or colour == "quality":
        return lambda value: "not known" if value is None else share(value)
    if colour == "source":
        return lambda value: "not named" if value is None else escape(value, 60)
    return lambda value: "not known" if value is None else f"{value:.3g}"
