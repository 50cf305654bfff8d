"""The views and table macros of a catalog, in SQL. docs/sql.md describes their columns.

DuckDB 1.5 and 2.0 can run these statements.
"""

import glob
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import chain
from pathlib import Path

from data_catalog.errors import UserError
from data_catalog.format.damage import DamagedFileError, unreadable
from data_catalog.format.layout import Levels
from data_catalog.format.manifest import Manifest, is_inside

# Pattern of each view's Parquet files among those that the manifest names. A view without files is
# omitted.
VIEW_FILES = {
    "documents": "documents/*/*.parquet",
    "domains": "versions/*/domains.parquet",
    "examples": "versions/*/examples.parquet",
    "health": "versions/*/health.parquet",
    "offsets": "versions/*/offsets.parquet",
    "distributions": "versions/*/distributions.parquet",
    "targets": "versions/*/targets.parquet",
    "leakage": "versions/*/leakage.parquet",
    "accounting": "versions/*/accounting.parquet",
    "removed": "versions/*/removed.parquet",
    "quarantine": "versions/*/quarantine.parquet",
    "signals": "signals/*.parquet",
    "verdicts": "verdicts/*.parquet",
}


@dataclass(frozen=True)
class DerivedView:
    """A view or table macro over other views. It is omitted if the catalog lacks one of them."""

    views: tuple[str, ...]
    """Views that it reads."""
    sql: str
    """Statement that creates it."""


# In a macro, an unqualified name refers to the parameter if there is one of that name.
DERIVED_VIEWS = {
    "shards": DerivedView(
        ("offsets",),
        """
        CREATE VIEW shards AS
        SELECT top, part,
               format('documents/top={:04d}/part-{:04d}.parquet', top, part) AS documents_file,
               format('tokens/top={:04d}/part-{:04d}.arrow', top, part) AS tokens_file,
               min(leaf) AS first_leaf, max(leaf) AS last_leaf, count(DISTINCT leaf) AS leaves,
               sum(rows)::BIGINT AS documents,
               coalesce(sum(tokens) FILTER (split = 'train'), 0)::BIGINT AS train_tokens,
               coalesce(sum(tokens) FILTER (split = 'heldout'), 0)::BIGINT AS heldout_tokens
        FROM offsets GROUP BY top, part ORDER BY top, part""",
    ),
    # The number of a domain's ancestor is the domain's number without the last digits of the
    # prefix code.
    "domain_tree": DerivedView(
        ("domains",),
        """
        CREATE VIEW domain_tree AS
        WITH levels AS (
            SELECT level, row_number() OVER up - 1 AS depth, lag(level) OVER up AS parent_level,
                   lead(level) OVER up AS child_level, max(level) OVER () // level AS span
            FROM (SELECT DISTINCT level FROM domains) WINDOW up AS (ORDER BY level)),
        paths AS (
            SELECT d.level, d.domain,
                   list(d.domain // (d.level // above.level) ORDER BY above.level) AS path
            FROM domains AS d JOIN levels AS above ON above.level <= d.level
            GROUP BY d.level, d.domain),
        families AS (
            SELECT level, parent, list(domain ORDER BY domain) AS children
            FROM domains WHERE parent IS NOT NULL GROUP BY level, parent)
        SELECT d.level, d.domain, l.depth, l.parent_level, d.parent, path, l.child_level,
               coalesce(children, []) AS children, d.domain * l.span AS first_leaf,
               (d.domain + 1) * l.span - 1 AS last_leaf, d.documents, d.tokens, d.terms
        FROM domains AS d JOIN levels AS l USING (level) JOIN paths USING (level, domain)
        LEFT JOIN families AS f ON f.level = l.child_level AND f.parent = d.domain
        ORDER BY d.level, d.domain""",
    ),
    # The bounds are constants, not a subquery, so that DuckDB reads only the row groups of the
    # domain.
    "domain_docs": DerivedView(
        ("documents",),
        """
        CREATE MACRO domain_docs(level, id) AS TABLE
        SELECT documents.* FROM documents
        WHERE documents.leaf >= {first}
          AND documents.leaf < {first} + {leaves} // greatest(level, 1)""",
    ),
    # One row per distribution. Entropy is in nats. Its exponential is the number of equally
    # weighted domains with the same entropy.
    "distribution_statistics": DerivedView(
        ("distributions",),
        """
        CREATE VIEW distribution_statistics AS
        SELECT *, exp(entropy) AS effective_domains
        FROM (
            SELECT name, kind, level, count(*) AS domains, -sum(weight * ln(weight)) AS entropy,
                   max(weight) AS largest_weight, arg_max(domain, weight) AS largest_domain
            FROM distributions GROUP BY ALL)
        ORDER BY name, kind, level""",
    ),
    # One row per ordered pair of distributions of one kind and level. Natural and uniform belong to
    # both kinds. The overlap is sum(min(p, q)). The Hellinger distance is
    # sqrt(1 - sum(sqrt(p * q))). The Jensen-Shannon divergence in nats is the mean of the
    # divergences of p and q from m = (p + q) / 2. A domain with weight w in only one of them
    # contributes w * ln(2) / 2. Subqueries are not materialized, so that a query for one pair
    # computes only that pair.
    "distribution_overlaps": DerivedView(
        ("distributions",),
        """
        CREATE VIEW distribution_overlaps AS
        WITH p AS NOT MATERIALIZED (
            SELECT name, level, domain, weight,
                   unnest(CASE WHEN kind IN ('natural', 'uniform') THEN ['hard', 'distance']
                               ELSE [kind] END) AS kind
            FROM distributions),
        names AS NOT MATERIALIZED (SELECT DISTINCT name, kind, level FROM p),
        shared AS NOT MATERIALIZED (
            SELECT a.name AS name, b.name AS other, a.kind AS kind, a.level AS level,
                   sum(least(a.weight, b.weight)) AS overlap,
                   sum(sqrt(a.weight * b.weight)) AS affinity,
                   sum(a.weight * ln(2 * a.weight / (a.weight + b.weight))
                       + b.weight * ln(2 * b.weight / (a.weight + b.weight))
                       - (a.weight + b.weight) * ln(2)) / 2 AS reduction
            FROM p AS a JOIN p AS b
            ON a.kind = b.kind AND a.level = b.level AND a.domain = b.domain AND a.name <> b.name
            GROUP BY ALL)
        SELECT a.name AS name, b.name AS other, a.kind AS kind, a.level AS level,
               coalesce(overlap, 0) AS overlap,
               sqrt(greatest(1 - coalesce(affinity, 0), 0)) AS hellinger,
               greatest(ln(2) + coalesce(reduction, 0), 0) AS jensen_shannon
        FROM names AS a JOIN names AS b
        ON a.kind = b.kind AND a.level = b.level AND a.name <> b.name
        LEFT JOIN shared ON shared.name = a.name AND shared.other = b.name
            AND shared.kind = a.kind AND shared.level = a.level""",
    ),
    # A document counts if half or more of its 13-grams are in one other document.
    "target_leakage": DerivedView(
        ("leakage",),
        """
        CREATE VIEW target_leakage AS
        SELECT name, split, count(*) AS documents,
               avg((in_corpus >= 0.5)::INT) AS in_corpus, avg((in_align >= 0.5)::INT) AS in_align
        FROM leakage GROUP BY name, split
        ORDER BY name, list_position(['align', 'validation', 'test'], split)""",
    ),
    "overlap": DerivedView(
        ("distributions",),
        """
        CREATE MACRO overlap(a, b) AS TABLE
        SELECT kind, level, overlap, hellinger, jensen_shannon
        FROM distribution_overlaps WHERE name = a AND other = b
        UNION ALL
        SELECT NULL, NULL, NULL, NULL,
               error('distribution ' || coalesce(missing, 'NULL') || ': not in the catalog. '
                     || 'List the names with SELECT DISTINCT name FROM distributions.')
        FROM (SELECT unnest([a, b]) AS missing)
        WHERE missing NOT IN (SELECT name FROM distributions)
        ORDER BY kind DESC, level""",
    ),
    "nearest_domains": DerivedView(
        ("distributions", "domains"),
        """
        CREATE MACRO nearest_domains(target, k := 10) AS TABLE
        WITH weights AS (
            SELECT level, domain, sum(weight) FILTER (kind <> 'distance') AS weight,
                   sum(weight) FILTER (kind = 'distance') AS distance_weight
            FROM distributions WHERE name = target GROUP BY level, domain),
        ranked AS (
            SELECT *,
                   CASE WHEN weight > 0 THEN row_number() OVER (
                       PARTITION BY level ORDER BY weight DESC NULLS LAST, domain) END AS rank,
                   CASE WHEN distance_weight > 0 THEN row_number() OVER (
                       PARTITION BY level ORDER BY distance_weight DESC NULLS LAST, domain)
                   END AS distance_rank
            FROM weights)
        SELECT r.level, r.domain, rank, weight, distance_rank, distance_weight, d.documents,
               d.tokens, d.terms
        FROM ranked AS r JOIN domains AS d USING (level, domain)
        WHERE rank <= k OR distance_rank <= k
        UNION ALL
        SELECT NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
               [error('distribution ' || target || ': not in the catalog. '
                      || 'List the names with SELECT name FROM targets.')]
        WHERE target NOT IN (SELECT name FROM distributions)
        ORDER BY level, rank NULLS LAST, distance_rank""",
    ),
    # The reason of a document that fails rules is the first of these rules, which is the one of
    # the lowest set bit. The names of the bits are therefore taken from the verdicts, because
    # additions may use another preset than the build.
    "rules": DerivedView(
        ("verdicts",),
        """
        CREATE VIEW rules AS
        WITH masks AS (
            SELECT reason,
                   [bit FOR bit IN range(64) IF (failed_rules >> bit) & 1 = 1] AS bits,
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


# First leaf of a domain, for domain_docs. The check is part of both bounds, because DuckDB
# evaluates only one of them if it excludes all rows.
_FIRST_LEAF = """
    CASE WHEN level NOT IN ({granularities})
         THEN error('level ' || level || ': not in this catalog. '
                    || 'Expected one of {granularities}.')
         WHEN id NOT BETWEEN 0 AND level - 1
         THEN error('domain ' || id || ': not in level ' || level || '. '
                    || 'Expected 0 to ' || (level - 1) || '.')
         ELSE id * ({leaves} // level) END"""


def view_files(manifest: Manifest) -> dict[str, list[str]]:
    """Return the files of each view, as paths below the catalog.

    Only files that the manifest names are included, so an older version does not see newer files.
    """
    matches = {
        view: sorted(name for name in manifest.files if fnmatchcase(name, pattern))
        for view, pattern in VIEW_FILES.items()
    }
    return {view: names for view, names in matches.items() if names}


def existing_view_files(root: Path, manifest: Manifest) -> dict[str, list[str]]:
    """Return `view_files` after checking that each is a file inside the catalog.

    Raises:
        DamagedFileError: A file is missing.
        UserError: A file lies outside the catalog.
    """
    views = view_files(manifest)
    for name in chain.from_iterable(views.values()):
        if not is_inside(root, name):
            raise UserError(f"{root}: {name} is outside the catalog. Do not use this catalog.")
        if reason := unreadable(root / name):
            raise DamagedFileError(root / name, reason)
    return views


def literal(text: str) -> str:
    """Return `text` as an SQL literal."""
    return "'" + text.replace("'", "''") + "'"


def path_list(paths: Iterable[str]) -> str:
    """Return paths as an SQL list for DuckDB's readers, which would expand glob patterns."""
    return f"[{', '.join(literal(glob.escape(path)) for path in paths)}]"


def file_statements(files: Mapping[str, Sequence[str]], folder: str = "") -> Iterator[str]:
    """Yield the statements that create the views of Parquet files.

    Args:
        files: Paths of each view's files, below the catalog.
        folder: Beginning of each path. None is needed where the catalog is the current folder.
    """
    for view, names in files.items():
        paths = path_list(f"{folder}{name}" for name in names)
        yield f"CREATE VIEW {view} AS FROM read_parquet({paths}, hive_partitioning = false)"


def derived_statements(views: Set[str], levels: Levels) -> Iterator[str]:
    """Yield the statements that create each derived view whose own views are in `views`."""
    granularities = ", ".join(map(str, levels.granularities))
    numbers = {
        "leaves": levels.leaves,
        "first": _FIRST_LEAF.format(granularities=granularities, leaves=levels.leaves),
    }
    for name, view in DERIVED_VIEWS.items():
        if views >= set(view.views):
            yield view.sql.format(**numbers) if name == "domain_docs" else view.sql
