"""The views of a catalog, in SQL."""

FILES = {  # view -> where its Parquet files are, below the catalog
    "documents": "documents/*/*.parquet",
    "domains": "domains.parquet",
    "offsets": "offsets.parquet",
    "distributions": "distributions.parquet",
    "accounting": "accounting.parquet",
    "quarantine": "quarantine/quarantine.parquet",
}
DERIVED = {
    "shards": """
        CREATE VIEW shards AS
        SELECT top, format('documents/top={:04d}/part-0000.parquet', top) AS documents_file,
               format('tokens/top={:04d}.arrow', top) AS tokens_file,
               min(leaf) AS first_leaf, max(leaf) AS last_leaf, count(DISTINCT leaf) AS leaves, sum(rows)::BIGINT AS documents,
               coalesce(sum(tokens) FILTER (split = 'train'), 0)::BIGINT AS train_tokens,
               coalesce(sum(tokens) FILTER (split = 'heldout'), 0)::BIGINT AS heldout_tokens
        FROM offsets GROUP BY top ORDER BY top""",
}
