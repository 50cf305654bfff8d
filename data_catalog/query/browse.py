"""Find domains by size, target or words, and describe one domain.

The views that are used here are described in docs/sql.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from data_catalog.errors import UserError, suggestion
from data_catalog.query.views import view_files

if TYPE_CHECKING:
    import pyarrow as pa

    from data_catalog.query.database import Catalog

_MAXIMUM_TARGETS = 10  # per described domain
_EXAMPLES_PER_KIND = 3

# Each word must occur in a term. A term that equals the word ranks before one that contains it, and
# an earlier term before a later one.
_FIND = """
    WITH spread AS (
        SELECT level, domain, lower(unnest(terms)) AS term,
               generate_subscripts(terms, 1) AS position
        FROM domains),
    hits AS (
        SELECT level, domain, word,
               min(position + CASE WHEN term = word THEN 0 ELSE 1000 END) AS position
        FROM spread, unnest($words::VARCHAR[]) AS query(word) WHERE contains(term, word)
        GROUP BY ALL),
    matches AS (
        SELECT level, domain, sum(position) AS position FROM hits
        GROUP BY ALL HAVING count(*) = len($words::VARCHAR[])),
    weights AS (
        SELECT level, domain, weight FROM distributions
        WHERE name = $target::VARCHAR AND kind <> 'distance')
    SELECT level, domain, weight, documents, tokens, terms, flags
    FROM domains LEFT JOIN weights USING (level, domain) LEFT JOIN matches USING (level, domain)
    WHERE ($target IS NULL OR weight > 0)
      AND (len($words::VARCHAR[]) = 0 OR position IS NOT NULL)
      AND ($level IS NULL OR level = $level)
    ORDER BY CASE WHEN $target IS NULL THEN position END NULLS LAST, weight DESC NULLS LAST,
             tokens DESC, level, domain
    LIMIT $limit"""
_DOMAIN = """
    SELECT d.* EXCLUDE (nearest, typical, boundary, parent), t.parent_level, t.parent, t.path,
           t.child_level, t.first_leaf, t.last_leaf
    FROM domains AS d JOIN domain_tree AS t USING (level, domain)
    WHERE d.level = $level AND d.domain = $domain"""
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
    ORDER BY weight DESC, distance_weight DESC, name LIMIT $limit"""
_EXAMPLES = """
    SELECT kind, doc_id, source, distance, snippet FROM examples
    WHERE level = $level AND domain = $domain AND rank < $limit
    ORDER BY list_position(['nearest', 'typical', 'boundary'], kind), rank"""


def find_domains(
    catalog: Catalog,
    *,
    level: int | None = None,
    search: str | None = None,
    target: str | None = None,
    limit: int | None = 20,
) -> pa.Table:
    """Return domains with their size, terms and flags, largest first.

    Args:
        catalog: The open catalog.
        level: Level of the domains. None means the coarsest level, or all levels with `search`.
        search: Words that must occur in the terms, ignoring case. The best match comes first.
        target: Target or other distribution. Adds its `weight`, sorts by it and omits domains
            without weight. With `search`, matching domains are sorted by weight.
        limit: Maximum number of rows. None means all.

    Returns:
        Columns `level`, `domain`, `weight` (share of the target, only with `target`), `documents`,
        `tokens`, `terms` and `flags`.

    Raises:
        UserError: The level or target does not exist, `search` is empty, or the catalog has no
            table of domains.
    """
    _check_tables(catalog)
    if level is not None:
        catalog.levels.span(level)
    words = sorted(set((search or "").lower().split()))
    if search is not None and not words:
        raise UserError("search: no words found. Expected at least one word.")
    if target is not None:
        query = "SELECT DISTINCT name FROM distributions ORDER BY name"
        names = catalog.table(query)["name"].to_pylist()
        if target not in names:
            hint = suggestion(target, names, "Its distributions")
            raise UserError(f"target {target}: not in {catalog.root}. {hint}")
    chosen = level if level is not None or words else catalog.levels.granularities[0]
    parameters = {"level": chosen, "words": words, "target": target, "limit": limit}
    domains = catalog.table(_FIND, parameters)
    return domains.drop_columns("weight") if target is None else domains


def describe_domain(catalog: Catalog, level: int, domain: int) -> dict[str, Any]:
    """Return everything that a catalog knows about one domain, as plain values.

    Args:
        catalog: The open catalog.
        level: Granularity of the domain's level.
        domain: Number of the domain.

    Returns:
        The columns of the views `domains` and `domain_tree` (see docs/sql.md) without the ids of
        examples. `children` have a size and terms. `targets` are those with the largest weight,
        each with its `weight` in the hard distribution, `times_natural` (the ratio of that weight
        and the domain's share of all training tokens) and `distance_weight`. `examples` have
        `kind`, `doc_id`, `source`, `distance` and `snippet`, the untrusted beginning of the text.

    Raises:
        UserError: The level or domain does not exist, or the catalog has no table of domains.
    """
    _check_tables(catalog)
    catalog.levels.span(level)
    if not 0 <= domain < level:
        raise UserError(f"domain {domain}: not in level {level}. Expected 0 to {level - 1}.")

    def rows(query: str, **more: int) -> list[dict[str, Any]]:
        parameters = {"level": level, "domain": domain, **more}
        return list(catalog.table(query, parameters).to_pylist())

    properties = rows(_DOMAIN)
    if not properties:
        raise UserError(
            f"domain {domain}: not in the table of domains of {catalog.root}. "
            "Run `clustermix verify` to see which files are damaged."
        )
    has_examples = "examples" in view_files(catalog.manifest)
    return {
        **properties[0],
        "children": rows(_CHILDREN),
        "targets": rows(_TARGETS, limit=_MAXIMUM_TARGETS),
        "examples": rows(_EXAMPLES, limit=_EXAMPLES_PER_KIND) if has_examples else [],
    }


def _check_tables(catalog: Catalog) -> None:
    if not {"domains", "distributions"} <= view_files(catalog.manifest).keys():
        raise UserError(
            f"{catalog.root}: the tables of domains and distributions are missing. "
            "Build the catalog again."
        )
