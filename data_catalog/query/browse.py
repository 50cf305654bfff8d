"""Looking around in a catalog: domains by size, by a target or by words, and one domain closely. `docs/sql.md` has the views behind it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from data_catalog.errors import UserError, suggestion
from data_catalog.query.database import view_files

if TYPE_CHECKING:
    import pyarrow as pa

    from data_catalog.query.database import Catalog

NEAREST_TARGETS = 10  # that a domain names
EXAMPLES = 3  # of each kind, that a domain shows

# All words must be in some term. A term that is the word itself comes before one that holds it, an earlier term before a later one.
_FIND = """
    WITH spread AS (SELECT level, domain, lower(unnest(terms)) AS term, generate_subscripts(terms, 1) AS place FROM domains),
    found AS (
        SELECT level, domain, word, min(place + CASE WHEN term = word THEN 0 ELSE 1000 END) AS place
        FROM spread, unnest($words::VARCHAR[]) AS asked(word) WHERE contains(term, word) GROUP BY ALL),
    matches AS (SELECT level, domain, sum(place) AS place FROM found GROUP BY ALL HAVING count(*) = len($words::VARCHAR[])),
    weights AS (SELECT level, domain, weight FROM distributions WHERE name = $target::VARCHAR AND kind <> 'distance')
    SELECT level, domain, weight, documents, tokens, terms, flags
    FROM domains LEFT JOIN weights USING (level, domain) LEFT JOIN matches USING (level, domain)
    WHERE ($target IS NULL OR weight > 0) AND (len($words::VARCHAR[]) = 0 OR place IS NOT NULL) AND ($level IS NULL OR level = $level)
    ORDER BY CASE WHEN $target IS NULL THEN place END NULLS LAST, weight DESC NULLS LAST, tokens DESC, level, domain LIMIT $limit"""
_DOMAIN = """
    SELECT d.* EXCLUDE (nearest, typical, boundary, parent), t.parent_level, t.parent, t.path, t.child_level, t.first_leaf, t.last_leaf
    FROM domains AS d JOIN domain_tree AS t USING (level, domain) WHERE d.level = $level AND d.domain = $domain"""
_CHILDREN = """
    SELECT c.level, c.domain, c.documents, c.tokens, c.terms
    FROM domains AS c JOIN domain_tree AS t ON c.level = t.child_level AND c.parent = t.domain
    WHERE t.level = $level AND t.domain = $domain ORDER BY c.tokens DESC, c.domain"""
_TARGETS = """
    WITH here AS (SELECT * FROM distributions WHERE level = $level AND domain = $domain),
    corpus AS (SELECT sum(weight) AS share FROM here WHERE name = 'natural'),
    weights AS (
        SELECT name, coalesce(sum(weight) FILTER (kind = 'hard'), 0) AS weight,
               coalesce(sum(weight) FILTER (kind = 'distance'), 0) AS distance_weight
        FROM here WHERE kind IN ('hard', 'distance') GROUP BY name)
    SELECT name, weight, weight / share AS times_natural, distance_weight FROM weights, corpus
    ORDER BY weight DESC, distance_weight DESC, name LIMIT $most"""
_EXAMPLES = """
    SELECT kind, doc_id, source, distance, snippet FROM examples WHERE level = $level AND domain = $domain AND rank < $most
    ORDER BY list_position(['nearest', 'typical', 'boundary'], kind), rank"""


def find_domains(
    catalog: Catalog,
    *,
    level: int | None = None,
    search: str | None = None,
    target: str | None = None,
    limit: int | None = 20,
) -> pa.Table:
    """Domains with their size, terms and flags; the largest first.

    Args:
        level: None: the coarsest; with `search`, all.
        search: words that the terms must hold, whatever the case; the best match first.
        target: or any other distribution: adds its `weight`, and orders by that; domains without any are left out. With `search` too,
            those that match, by weight.
        limit: most rows; None: all.

    Returns:
        `level`, `domain`, with a target `weight` (share of it), then `documents`, `tokens`, `terms` and `flags`.

    Raises:
        UserError: no such level or target, or the catalog has no table of domains.
    """
    _check(catalog)
    if level is not None:
        catalog.levels.span(level)
    words = sorted(set((search or "").lower().split()))
    if search is not None and not words:
        raise UserError("search: expected a word, found none")
    if target is not None:
        names = [
            name
            for (name,) in catalog.connection.execute(
                "SELECT DISTINCT name FROM distributions ORDER BY name"
            ).fetchall()
        ]
        if target not in names:
            raise UserError(
                f"target {target}: not in {catalog.root}; {suggestion(target, names, 'distributions there')}"
            )
    here = level if level is not None or words else catalog.levels.granularities[0]
    given = {"level": here, "words": words, "target": target, "limit": limit}
    found = catalog.table(_FIND, given)
    return found.drop_columns("weight") if target is None else found


def describe_domain(catalog: Catalog, level: int, domain: int) -> dict[str, Any]:
    """All that a catalog knows of one domain, as plain values.

    Returns:
        The columns of the views `domains` and `domain_tree` (docs/sql.md) without the ids of examples; `children` with their size and
        terms; `targets`: those with the most weight in it, each with its `weight` by the hard distribution, `times_natural` (that weight
        by the domain's share of all training tokens) and `distance_weight`; and `examples`, each with `kind`, `doc_id`, `source`,
        `distance` and `snippet`: how the text begins, untrusted.

    Raises:
        UserError: no such level or domain, or the catalog has no table of domains.
    """
    _check(catalog)
    catalog.levels.span(level)
    if not 0 <= domain < level:
        raise UserError(f"domain {domain}: level {level} has domains 0 to {level - 1}")

    def rows(query: str, **more: int) -> list[dict[str, Any]]:
        return list(catalog.table(query, {"level": level, "domain": domain, **more}).to_pylist())

    about = rows(_DOMAIN)
    if not about:
        raise UserError(
            f"domain {domain}: not in the table of domains of {catalog.root}; `clustermix verify` tells what is damaged"
        )
    return {
        **about[0],
        "children": rows(_CHILDREN),
        "targets": rows(_TARGETS, most=NEAREST_TARGETS),
        "examples": rows(_EXAMPLES, most=EXAMPLES)
        if "examples" in view_files(catalog.manifest)
        else [],
    }


def _check(catalog: Catalog) -> None:
    if not {"domains", "distributions"} <= view_files(catalog.manifest).keys():
        raise UserError(
            f"{catalog.root}: has no tables of domains and distributions; build the catalog again"
        )
