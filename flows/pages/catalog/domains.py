"""Data on every domain as compact columns for the scripts of the catalog page.

Text from the catalog is cut to a maximum length.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from data_catalog import Catalog
from data_catalog.dropped_shares import DROPPED_SHARES
from data_catalog.format.centroids import project, read_centroids
from flows.pages.catalog.queries import query_rows
from flows.pages.catalog.signals import signal_means
from flows.pages.shared.numbers import json_numbers
from pipeline.describe.examples import EXAMPLE_KINDS, SNIPPET_CHARACTERS
from pipeline.describe.health import DOMAIN_FLAGS

# Levels with more domains are left out. Of a larger coarsest level, the largest domains are kept.
MAXIMUM_LEVEL_DOMAINS = 4_096
MAXIMUM_PAGE_EXAMPLES = 16_000  # in the page, but at least one per domain and kind
TERMS_PER_DOMAIN, SOURCES_PER_DOMAIN, EXAMPLES_PER_KIND = 8, 5, 3
MAXIMUM_NAME_CHARACTERS = 80  # of a term, source or target
MAXIMUM_ID_CHARACTERS = 200  # of a doc_id
DISTRIBUTION_KINDS = ("hard", "distance")  # of targets


class NameTable:
    """Names that many domains share. Each is stored once, and columns refer to it by number."""

    def __init__(self) -> None:
        self.texts: list[str | None] = []
        self._numbers: dict[str | None, int] = {}

    def number(self, text: str | None) -> int:
        """Return the number of a name. New names are added."""
        if text not in self._numbers:
            self._numbers[text] = len(self.texts)
            self.texts.append(text)
        return self._numbers[text]

    def shares(self, named: Iterable[Mapping[str, Any]] | None) -> list[Any]:
        """Return names and shares as [number, share, number, share, ...]."""
        return [
            value
            for row in named or []
            for value in (self.number(row["name"]), json_numbers(row["share"]))
        ]


def catalog_page_data(catalog: Catalog) -> dict[str, Any]:
    """Return all data of the page. Numbers have six significant digits, and NaN becomes null.

    `levels` is ordered from coarse to fine. Each level is a dict of columns with one entry per
    domain. The parent of a domain is not included because it follows from the number.

    Args:
        catalog: The catalog.

    Raises:
        UserError: A table or the tree of the catalog cannot be read.
    """
    granularities = catalog.levels.granularities
    shown = [k for k in granularities if k <= MAXIMUM_LEVEL_DOMAINS] or [granularities[0]]
    places, variance = project(read_centroids(catalog.files, shown))
    names = NameTable()
    targets = list(catalog.manifest.targets)
    examples_per_kind = max(
        1,
        min(
            EXAMPLES_PER_KIND,
            MAXIMUM_PAGE_EXAMPLES
            // (len(EXAMPLE_KINDS) * sum(min(k, MAXIMUM_LEVEL_DOMAINS) for k in shown)),
        ),
    )
    levels = [_level(catalog, k, places[k], targets, names, examples_per_kind) for k in shown]
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
        "flags": DOMAIN_FLAGS,
        "kinds": EXAMPLE_KINDS,
        "variance": json_numbers(variance),
    }


def _shown(level: int) -> str:
    """Return a subquery for the rows of `domains` that the page shows of a level."""
    return f"""(SELECT * FROM domains WHERE level = {level} AND domain >= 0 AND domain < {level}
        QUALIFY row_number() OVER (ORDER BY documents DESC, domain)
            <= {MAXIMUM_LEVEL_DOMAINS})"""  # noqa: S608 (numbers only)


def _cut_texts(column: str, count: int) -> str:
    """Return SQL for the first texts of a list, each cut to the maximum length."""
    return f"list_transform({column}[1:{count}], lambda x: left(x, {MAXIMUM_NAME_CHARACTERS}))"


def _cut_names(column: str) -> str:
    """Return SQL for the first (name, share) of a list, each name cut to the maximum length."""
    item = f"{{name: left(x.name, {MAXIMUM_NAME_CHARACTERS}), share: x.share}}"
    return f"list_transform({column}[1:{SOURCES_PER_DOMAIN}], lambda x: {item})"


def _level(
    catalog: Catalog,
    level: int,
    places: Float[np.ndarray, "cells 2"],
    targets: Sequence[str],
    names: NameTable,
    examples_per_kind: int,
) -> dict[str, Any]:
    """Return the columns of a level, with up to `examples_per_kind` examples per kind."""
    rows = query_rows(
        catalog,
        f"""SELECT domain, documents, tokens, mean_distance, radius, distance_quantiles[1:5],
               {_cut_texts("terms", TERMS_PER_DOMAIN)},
               {_cut_names("top_sources")},
               {_cut_names("languages")},
               {_cut_texts("flags", SOURCES_PER_DOMAIN)}
        FROM {_shown(level)} ORDER BY domain""",  # noqa: S608
    )
    columns: tuple[list[Any], ...] = (
        tuple(map(list, zip(*rows, strict=True))) if rows else ([],) * 10
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
        "examples": _examples(catalog, level, place, names, examples_per_kind),
    }


def _weights(
    catalog: Catalog, level: int, place: Mapping[int, int]
) -> dict[tuple[str, str], Float[np.ndarray, " domains"]]:
    """Return distributions by (name, kind), in the order of `place`."""
    found: dict[tuple[str, str], Float[np.ndarray, " domains"]] = {}
    query = f"SELECT name, kind, domain, weight FROM distributions WHERE level = {level}"  # noqa: S608
    for name, kind, domain, weight in query_rows(catalog, query):
        if domain in place:
            found.setdefault((name, kind), np.zeros(len(place)))[place[domain]] = weight
    return found


def _dropped(catalog: Catalog, level: int, place: Mapping[int, int]) -> list[float | None]:
    """Return the dropped share per domain. None if the domain has no known source."""
    shares: list[float | None] = [None] * len(place)
    query = f"SELECT domain, value FROM ({DROPPED_SHARES}) WHERE level = {level}"  # noqa: S608
    for domain, share in query_rows(catalog, query):
        if domain in place:
            shares[place[domain]] = json_numbers(share)
    return shares


def _examples(
    catalog: Catalog, level: int, place: Mapping[int, int], names: NameTable, maximum: int
) -> list[list[list[Any]]]:
    """Return the examples per domain, best first.

    An example is [number of the kind, distance, number of the source, doc_id, snippet].
    """
    examples = query_rows(
        catalog,
        f"""SELECT domain, kind, distance, left(source, {MAXIMUM_NAME_CHARACTERS}),
               left(doc_id, {MAXIMUM_ID_CHARACTERS}), left(snippet, {SNIPPET_CHARACTERS})
        FROM (SELECT * FROM examples WHERE level = {level} AND kind IN {EXAMPLE_KINDS}
              QUALIFY row_number() OVER (PARTITION BY domain, kind ORDER BY rank) <= {maximum})
        WHERE domain IN (SELECT domain FROM {_shown(level)}) ORDER BY domain, rank, kind""",  # noqa: S608
    )
    found: list[list[list[Any]]] = [[] for _ in place]
    for domain, kind, distance, source, doc_id, snippet in examples:
        if domain in place:
            found[place[domain]].append(
                [
                    EXAMPLE_KINDS.index(kind),
                    json_numbers(distance),
                    names.number(source),
                    doc_id,
                    snippet,
                ]
            )
    return found
