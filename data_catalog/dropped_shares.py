"""Share of documents that quality rules and dedup dropped, per domain.

Dropped documents have no domain. The share of a domain is therefore estimated from its main
sources, weighted by their shares in the domain.
"""

DROPPED_SHARES = """
    WITH main AS (SELECT level, domain, unnest(top_sources) AS s FROM domains),
    lost AS (SELECT source, sum(share) AS share FROM removed GROUP BY source)
    SELECT level, domain, sum(s.share * coalesce(lost.share, 0)) / sum(s.share) AS value
    FROM main LEFT JOIN lost ON lost.source = s.name
    WHERE s.name IS NOT NULL GROUP BY level, domain"""
