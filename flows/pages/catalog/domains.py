"""What the page knows about every domain, as compact columns for its scripts. All text from the catalog is cut to a length first."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from data_catalog import Catalog
from data_catalog.format.centroids import project, read_centroids
from flows.pages.catalog.queries import query_rows
from flows.pages.catalog.signals import signal_means
from flows.pages.shared.numbers import json_numbers
from pipeline.describe.examples import KINDS, SNIPPET
from pipeline.describe.health import FLAGS

MAXIMUM_LEVEL_DOMAINS = 4_096  # of one level; a finer level is left out, and of a coarsest level that has more the largest are kept
MAXIMUM_EXAMPLES = 16_000  # of all domains; at least one of each kind is kept
TERMS_PER_DOMAIN, SOURCES_PER_DOMAIN, EXAMPLES_PER_KIND = 8, 5, 3
MAXIMUM_NAME_CHARACTERS, MAXIMUM_ID_CHARACTERS = (
    80,
    200,
)  # characters of a term, a site, a target; of a doc_id
DISTRIBUTION_KINDS = ("hard", "distance")  # of a target's distribution


class NameTable:
    """Text that many domains share, written once: each is a number in the columns."""

    def __init__(self) -> None:
        self.texts: list[str | None] = []
        self._numbers: dict[str | None, int] = {}

    def number(self, text: str | None) -> int:
        if text not in self._numbers:
            self._numbers[text] = len(self.texts)
            self.texts.append(text)
        return self._numbers[text]

    def shares(self, named: Iterable[Mapping[str, Any]] | None) -> list[Any]:
        """[number, share, number, share, ...]"""
        return [
            value
            for row in named or []
            for value in (self.number(row["name"]), json_numbers(row["share"]))
        ]


def catalog_page_data(catalog: Catalog) -> dict[str, Any]:
    """Everything that the scripts need. Numbers have six significant digits; what is not finite is null.

    `levels`: coarse to fine, each a dict of columns, one entry a domain. A domain's parent is left to the scripts: it follows
    from its number.

    Raises:
        UserError: a table or the tree of the catalog cannot be read.
    """
    granularities = catalog.levels.granularities
    shown = [k for k in granularities if k <= MAXIMUM_LEVEL_DOMAINS] or [granularities[0]]
    places, variance = project(read_centroids(catalog.files, shown))
    names = NameTable()
    targets = list(catalog.manifest.targets)
    a_kind = max(
        1,
        min(
            EXAMPLES_PER_KIND,
            MAXIMUM_EXAMPLES // (len(KINDS) * sum(min(k, MAXIMUM_LEVEL_DOMAINS) for k in shown)),
        ),
    )
    levels = [_level(catalog, k, places[k], targets, names, a_kind) for k in shown]
    signals, means = signal_means(catalog, shown)
    for level in levels:
        level["signals"] = [
            [mean[domain] for domain in level["domain"]] for mean in means.get(level["level"], [])
        ]
    return {
        "levels": levels,
        "signals": signals,
        "finer": [k for k in granularities if k not in shown],
        "targets": [name[:MAXIMUM_NAME_CHARACTERS] for name in targets],
        "names": names.texts,
        "flags": FLAGS,
        "kinds": KINDS,
        "variance": json_numbers(variance),
    }


def _shown(level: int) -> str:
    """The rows of `domains` that the page shows of a level, as a subquery."""
    return f"""(SELECT * FROM domains WHERE level = {level} AND domain >= 0 AND domain < {level}
        QUALIFY row_number() OVER (ORDER BY documents DESC, domain) <= {MAXIMUM_LEVEL_DOMAINS})"""  # noqa: S608 (numbers only)


def _level(
    catalog: Catalog,
    level: int,
    places: Float[np.ndarray, "cells 2"],
    targets: Sequence[str],
    names: NameTable,
    a_kind: int,
) -> dict[str, Any]:
    """One level's columns, with `a_kind` examples of each kind a domain."""
    found = query_rows(
        catalog,
        f"""SELECT domain, documents, tokens, mean_distance, radius, distance_quantiles[1:5],
               list_transform(terms[1:{TERMS_PER_DOMAIN}], lambda x: left(x, {MAXIMUM_NAME_CHARACTERS})),
               list_transform(top_sources[1:{SOURCES_PER_DOMAIN}], lambda x: {{name: left(x.name, {MAXIMUM_NAME_CHARACTERS}), share: x.share}}),
               list_transform(languages[1:{SOURCES_PER_DOMAIN}], lambda x: {{name: left(x.name, {MAXIMUM_NAME_CHARACTERS}), share: x.share}}),
               list_transform(flags[1:{SOURCES_PER_DOMAIN}], lambda x: left(x, {MAXIMUM_NAME_CHARACTERS}))
        FROM {_shown(level)} ORDER BY domain""",  # noqa: S608
    )
    columns: tuple[list[Any], ...] = (
        tuple(map(list, zip(*found, strict=True))) if found else ([],) * 10
    )
    domains, documents, tokens, distance, radius, quantiles, terms, sources, languages, flags = (
        columns
    )
    place = {domain: i for i, domain in enumerate(domains)}
    weights = _weights(catalog, level, place)
    none = np.zeros(len(place))
    return {
        "level": level,
        "domain": domains,
        "documents": documents,
        "tokens": tokens,
        "distance": json_numbers(distance),
        "radius": json_numbers(radius),
        "quantiles": [json_numbers(row or []) for row in quantiles],
        "terms": [row or [] for row in terms],
        "sources": [names.shares(row) for row in sources],
        "languages": [names.shares(row) for row in languages],
        "flags": [row or [] for row in flags],
        "dropped": _dropped(catalog, level, place),
        "natural": json_numbers(weights.get(("natural", "natural"), none)),
        "weights": {
            kind: [json_numbers(weights.get((name, kind), none)) for name in targets]
            for kind in DISTRIBUTION_KINDS
        },
        "places": json_numbers(places[domains]) if domains else [],
        "examples": _examples(catalog, level, place, names, a_kind),
    }


def _weights(
    catalog: Catalog, level: int, place: Mapping[int, int]
) -> dict[tuple[str, str], Float[np.ndarray, " domains"]]:
    """By (name, kind), in the order of `place`."""
    found: dict[tuple[str, str], Float[np.ndarray, " domains"]] = {}
    query = f"SELECT name, kind, domain, weight FROM distributions WHERE level = {level}"  # noqa: S608
    for name, kind, domain, weight in query_rows(catalog, query):
        if domain in place:
            found.setdefault((name, kind), np.zeros(len(place)))[place[domain]] = weight
    return found


def _dropped(catalog: Catalog, level: int, place: Mapping[int, int]) -> list[float | None]:
    """What quality rules and dedup dropped of the domain's main sources, by their shares; None: no source is known.

    A dropped document has no domain, so its source must stand for it.
    """
    lost = query_rows(
        catalog,
        f"""WITH main AS (
            SELECT domain, s.name AS name, s.share AS share
            FROM (SELECT domain, unnest(top_sources) AS s FROM {_shown(level)})),
        lost AS (SELECT source, sum(share) AS share FROM removed WHERE source IN (SELECT name FROM main) GROUP BY source)
        SELECT domain, sum(main.share * coalesce(lost.share, 0)) / sum(main.share)
        FROM main LEFT JOIN lost ON lost.source = main.name WHERE main.name IS NOT NULL GROUP BY domain""",  # noqa: S608
    )
    found: list[float | None] = [None] * len(place)
    for domain, share in lost:
        if domain in place:
            found[place[domain]] = json_numbers(share)
    return found


def _examples(
    catalog: Catalog, level: int, place: Mapping[int, int], names: NameTable, most: int
) -> list[list[list[Any]]]:
    """By domain: [kind's number, distance, source's number, doc_id, snippet], the best of each kind first."""
    examples = query_rows(
        catalog,
        f"""SELECT domain, kind, distance, left(source, {MAXIMUM_NAME_CHARACTERS}), left(doc_id, {MAXIMUM_ID_CHARACTERS}), left(snippet, {SNIPPET})
        FROM (SELECT * FROM examples WHERE level = {level} AND kind IN {KINDS}
              QUALIFY row_number() OVER (PARTITION BY domain, kind ORDER BY rank) <= {most})
        WHERE domain IN (SELECT domain FROM {_shown(level)}) ORDER BY domain, rank, kind""",  # noqa: S608
    )
    found: list[list[list[Any]]] = [[] for _ in place]
    for domain, kind, distance, source, doc_id, snippet in examples:
        if domain in place:
            found[place[domain]].append(
                [KINDS.index(kind), json_numbers(distance), names.number(source), doc_id, snippet]
            )
    return found
