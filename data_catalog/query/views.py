"""The views and table macros of a catalog, in SQL. `docs/sql.md` says what every column of them is."""

from collections.abc import Iterator, Set
from dataclasses import dataclass

from data_catalog.format.layout import Levels

FILES = {  # view -> its Parquet files, among those that the manifest names; a view without any is left out
    "documents": "documents/*/*.parquet",
    "domains": "versions/*/domains.parquet",
    "examples": "versions/*/examples.parquet",
    "health": "versions/*/health.parquet",
    "offsets": "versions/*/offsets.parquet",
    "distributions": "versions/*/distributions.parquet",
    "targets": "versions/*/targets.parquet",
    "accounting": "versions/*/accounting.parquet",
    "removed": "versions/*/removed.parquet",
    "quarantine": "versions/*/quarantine.parquet",
    "signals": "signals/*.parquet",
    "verdicts": "verdicts/*.parquet",
}


@dataclass(frozen=True)
class Derived:
    """A view or table macro over other views; a catalog that lacks one of them goes without it."""

    over: tuple[str, ...]
    sql: str


# In a macro, a name without a table before it is the parameter's, if there is one of that name.
DERIVED = {
    "shards": Derived(
        ("offsets",),
        """
        CREATE VIEW shards AS
        SELECT top, part, format('documents/top={:04d}/part-{:04d}.parquet', top, part) AS documents_file,
               format('tokens/top={:04d}/part-{:04d}.arrow', top, part) AS tokens_file,
               min(leaf) AS first_leaf, max(leaf) AS last_leaf, count(DISTINCT leaf) AS leaves, sum(rows)::BIGINT AS documents,
               coalesce(sum(tokens) FILTER (split = 'train'), 0)::BIGINT AS train_tokens,
               coalesce(sum(tokens) FILTER (split = 'heldout'), 0)::BIGINT AS heldout_tokens
        FROM offsets GROUP BY top, part ORDER BY top, part""",
    ),
    # A domain's number at a coarser level is its own, without the last digits of the prefix code.
    "domain_tree": Derived(
        ("domains",),
        """
        CREATE VIEW domain_tree AS
        WITH levels AS (
            SELECT level, row_number() OVER up - 1 AS depth, lag(level) OVER up AS parent_level, lead(level) OVER up AS child_level,
                   max(level) OVER () // level AS span
            FROM (SELECT DISTINCT level FROM domains) WINDOW up AS (ORDER BY level)),
        paths AS (
            SELECT d.level, d.domain, list(d.domain // (d.level // above.level) ORDER BY above.level) AS path
            FROM domains AS d JOIN levels AS above ON above.level <= d.level GROUP BY d.level, d.domain),
        families AS (
            SELECT level, parent, list(domain ORDER BY domain) AS children FROM domains WHERE parent IS NOT NULL GROUP BY level, parent)
        SELECT d.level, d.domain, l.depth, l.parent_level, d.parent, path, l.child_level, coalesce(children, []) AS children,
               d.domain * l.span AS first_leaf, (d.domain + 1) * l.span - 1 AS last_leaf, d.documents, d.tokens, d.terms
        FROM domains AS d JOIN levels AS l USING (level) JOIN paths USING (level, domain)
        LEFT JOIN families AS f ON f.level = l.child_level AND f.parent = d.domain
        ORDER BY d.level, d.domain""",
    ),
    # Without a subquery the range is of constants, and only the row groups that hold some of it are read.
    "domain_docs": Derived(
        ("documents",),
        """
        CREATE MACRO domain_docs(level, id) AS TABLE
        SELECT documents.* FROM documents WHERE documents.leaf >= {first} AND documents.leaf < {first} + {leaves} // greatest(level, 1)""",
    ),
    # One row a distribution. Entropy in nats; its exponential is how many equally weighted domains would be as spread out.
    "distribution_statistics": Derived(
        ("distributions",),
        """
        CREATE VIEW distribution_statistics AS
        SELECT *, exp(entropy) AS effective_domains
        FROM (SELECT name, kind, level, count(*) AS domains, -sum(weight * ln(weight)) AS entropy,
                     max(weight) AS largest_weight, arg_max(domain, weight) AS largest_domain
              FROM distributions GROUP BY ALL)
        ORDER BY name, kind, level""",
    ),
    # One row an ordered pair of distributions of one kind and level; natural and uniform are of either kind. Overlap is the weight they
    # share, sum of min(p, q); Hellinger distance is sqrt(1 - sum of sqrt(p q)); the Jensen-Shannon divergence is the mean of the two
    # divergences, in nats, from their mean m, where a weight that only one of them has adds ln(2) / 2 of itself. Not materialised, so that
    # a query for one pair computes that pair.
    "distribution_overlaps": Derived(
        ("distributions",),
        """
        CREATE VIEW distribution_overlaps AS
        WITH p AS NOT MATERIALIZED (
            SELECT name, unnest(CASE WHEN kind IN ('natural', 'uniform') THEN ['hard', 'distance'] ELSE [kind] END) AS kind,
                   level, domain, weight
            FROM distributions),
        names AS NOT MATERIALIZED (SELECT DISTINCT name, kind, level FROM p),
        shared AS NOT MATERIALIZED (
            SELECT a.name AS name, b.name AS other, a.kind AS kind, a.level AS level,
                   sum(least(a.weight, b.weight)) AS overlap, sum(sqrt(a.weight * b.weight)) AS affinity,
                   sum(a.weight * ln(2 * a.weight / (a.weight + b.weight)) + b.weight * ln(2 * b.weight / (a.weight + b.weight))
                       - (a.weight + b.weight) * ln(2)) / 2 AS less
            FROM p AS a JOIN p AS b ON a.kind = b.kind AND a.level = b.level AND a.domain = b.domain AND a.name <> b.name
            GROUP BY ALL)
        SELECT a.name AS name, b.name AS other, a.kind AS kind, a.level AS level, coalesce(overlap, 0) AS overlap,
               sqrt(greatest(1 - coalesce(affinity, 0), 0)) AS hellinger, greatest(ln(2) + coalesce(less, 0), 0) AS jensen_shannon
        FROM names AS a JOIN names AS b ON a.kind = b.kind AND a.level = b.level AND a.name <> b.name
        LEFT JOIN shared ON shared.name = a.name AND shared.other = b.name AND shared.kind = a.kind AND shared.level = a.level""",
    ),
    "overlap": Derived(
        ("distributions",),
        """
        CREATE MACRO overlap(a, b) AS TABLE
        SELECT kind, level, overlap, hellinger, jensen_shannon FROM distribution_overlaps WHERE name = a AND other = b
        UNION ALL
        SELECT NULL, NULL, NULL, NULL, error('no distribution ' || coalesce(missing, 'NULL') || '; SELECT DISTINCT name FROM distributions')
        FROM (SELECT unnest([a, b]) AS missing) WHERE missing NOT IN (SELECT name FROM distributions)
        ORDER BY kind DESC, level""",
    ),
    "nearest_domains": Derived(
        ("distributions", "domains"),
        """
        CREATE MACRO nearest_domains(target, k := 10) AS TABLE
        WITH weights AS (
            SELECT level, domain, sum(weight) FILTER (kind <> 'distance') AS weight, sum(weight) FILTER (kind = 'distance') AS by_distance
            FROM distributions WHERE name = target GROUP BY level, domain),
        ranked AS (
            SELECT *, CASE WHEN weight > 0 THEN row_number() OVER (PARTITION BY level ORDER BY weight DESC NULLS LAST, domain) END AS rank,
                   CASE WHEN by_distance > 0
                        THEN row_number() OVER (PARTITION BY level ORDER BY by_distance DESC NULLS LAST, domain) END AS distance_rank
            FROM weights)
        SELECT r.level, r.domain, rank, weight, distance_rank, by_distance AS distance_weight, d.documents, d.tokens, d.terms
        FROM ranked AS r JOIN domains AS d USING (level, domain) WHERE rank <= k OR distance_rank <= k
        UNION ALL
        SELECT NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, [error('no distribution ' || target || '; SELECT name FROM targets')]
        WHERE target NOT IN (SELECT name FROM distributions)
        ORDER BY level, rank NULLS LAST, distance_rank""",
    ),
    # A document that fails a rule names, as its reason, the first one that it fails: that of its lowest bit. So verdicts themselves say
    # which rule a bit is, as additions may bring other presets.
    "rules": Derived(
        ("verdicts",),
        """
        CREATE VIEW rules AS
        WITH masks AS (
            SELECT reason, list_filter(range(64), lambda bit: (failed_rules >> bit) & 1 = 1) AS bits,
                   count(*) AS n, sum(characters) AS length
            FROM verdicts WHERE failed_rules <> 0 GROUP BY reason, failed_rules)
        SELECT split_part(reason, '.', 1) AS preset, bit,
               max(substr(reason, strpos(reason, '.') + 1)) FILTER (bit = bits[1]) AS rule,
               sum(n)::BIGINT AS would_drop, sum(length)::BIGINT AS would_drop_characters,
               sum(n) / (SELECT count(*) FROM verdicts) AS share,
               coalesce(sum(n) FILTER (len(bits) = 1), 0)::BIGINT AS alone,
               coalesce(sum(n) FILTER (bit = bits[1]), 0)::BIGINT AS did_drop,
               coalesce(sum(length) FILTER (bit = bits[1]), 0)::BIGINT AS did_drop_characters
        FROM masks, unnest(bits) AS failed(bit) GROUP BY preset, bit ORDER BY preset, bit""",
    ),
}


# Of a domain, for domain_docs; in both ends of its range, as DuckDB asks only for one where that has no rows.
FIRST_LEAF = """
    CASE WHEN level NOT IN ({granularities}) THEN error('level ' || level || ': this catalog has levels {granularities}')
         WHEN id NOT BETWEEN 0 AND level - 1 THEN error('domain ' || id || ': level ' || level || ' has domains 0 to ' || level - 1)
         ELSE id * ({leaves} // level) END"""


def derived(views: Set[str], levels: Levels) -> Iterator[str]:
    """The statements that make what DERIVED has over the given `views`."""
    granularities = ", ".join(map(str, levels.granularities))
    numbers = {
        "leaves": levels.leaves,
        "first": FIRST_LEAF.format(granularities=granularities, leaves=levels.leaves),
    }
    for name, made in DERIVED.items():
        if views >= set(made.over):
            yield made.sql.format(**numbers) if name == "domain_docs" else made.sql
