"""The views of a catalog, in SQL."""

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
DERIVED = {
    "shards": """
        CREATE VIEW shards AS
        SELECT top, part, format('documents/top={:04d}/part-{:04d}.parquet', top, part) AS documents_file,
               format('tokens/top={:04d}/part-{:04d}.arrow', top, part) AS tokens_file,
               min(leaf) AS first_leaf, max(leaf) AS last_leaf, count(DISTINCT leaf) AS leaves, sum(rows)::BIGINT AS documents,
               coalesce(sum(tokens) FILTER (split = 'train'), 0)::BIGINT AS train_tokens,
               coalesce(sum(tokens) FILTER (split = 'heldout'), 0)::BIGINT AS heldout_tokens
        FROM offsets GROUP BY top, part ORDER BY top, part""",
    # One row a distribution. Entropy in nats; its exponential is how many equally weighted domains would be as spread out.
    "distribution_statistics": """
        CREATE VIEW distribution_statistics AS
        SELECT *, exp(entropy) AS effective_domains
        FROM (SELECT name, kind, level, count(*) AS domains, -sum(weight * ln(weight)) AS entropy,
                     max(weight) AS largest_weight, arg_max(domain, weight) AS largest_domain
              FROM distributions GROUP BY ALL)
        ORDER BY name, kind, level""",
    # One row an ordered pair of distributions of one kind and level; natural and uniform are of either kind. Overlap is the
    # weight they share, sum of min(p, q); Hellinger distance is sqrt(1 - sum of sqrt(p q)). Both are from 0 to 1.
    "distribution_overlaps": """
        CREATE VIEW distribution_overlaps AS
        WITH p AS (
            SELECT name, unnest(CASE WHEN kind IN ('natural', 'uniform') THEN ['hard', 'distance'] ELSE [kind] END) AS kind,
                   level, domain, weight
            FROM distributions),
        names AS (SELECT DISTINCT name, kind, level FROM p),
        shared AS (
            SELECT a.name AS name, b.name AS other, a.kind AS kind, a.level AS level,
                   sum(least(a.weight, b.weight)) AS overlap, sum(sqrt(a.weight * b.weight)) AS affinity
            FROM p AS a JOIN p AS b ON a.kind = b.kind AND a.level = b.level AND a.domain = b.domain AND a.name <> b.name
            GROUP BY ALL)
        SELECT a.name AS name, b.name AS other, a.kind AS kind, a.level AS level, coalesce(overlap, 0) AS overlap,
               sqrt(greatest(1 - coalesce(affinity, 0), 0)) AS hellinger
        FROM names AS a JOIN names AS b ON a.kind = b.kind AND a.level = b.level AND a.name <> b.name
        LEFT JOIN shared ON shared.name = a.name AND shared.other = b.name AND shared.kind = a.kind AND shared.level = a.level""",
}
