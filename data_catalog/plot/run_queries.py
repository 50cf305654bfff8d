"""Queries of the figures of training runs."""

# Weights by interval: the largest members, the sum of the others, and effective numbers. The
# effective number of domains is null unless the distributions of all members are known.
MIXTURE_QUERY = """
    WITH chosen AS (SELECT * FROM runs WHERE run = $run),
    log AS (
        SELECT interval, first_sequence * sequence_tokens AS tokens, member, sampling,
               avg(sampling) OVER (PARTITION BY member) AS mean, basis, level
        FROM weights JOIN chosen USING (run)),
    named AS (
        SELECT log.*, dense_rank() OVER (ORDER BY mean DESC, member) AS rank, terms[1:3] AS terms
        FROM log LEFT JOIN domains AS d
        ON basis = 'domains' AND d.level = log.level AND d.domain = TRY_CAST(member AS BIGINT)),
    mixed AS (
        SELECT interval, sum(w.sampling * p.weight) AS weight
        FROM weights AS w JOIN chosen AS r USING (run) JOIN distributions AS p
        ON p.name = w.member AND p.level = least(r.level, $finest)
            AND p.kind IN (r.config ->> '$.mixture.kind', w.member)
        WHERE r.basis <> 'domains' GROUP BY interval, p.domain),
    spread AS (
        SELECT interval, CASE WHEN abs(sum(weight) - 1) < 0.01
                              THEN exp(-sum(weight * ln(weight))) END AS effective_domains
        FROM mixed WHERE weight > 0 GROUP BY interval),
    members AS (
        SELECT interval, count(*) AS members,
               exp(-sum(sampling * ln(sampling)) FILTER (sampling > 0)) AS effective_members
        FROM log GROUP BY interval)
    SELECT interval, tokens, CASE WHEN rank <= $members THEN member END AS member,
           any_value(terms) FILTER (rank <= $members) AS terms, sum(sampling) AS weight,
           min(rank) AS place, any_value(members) AS members,
           any_value(effective_members) AS effective_members,
           any_value(CASE WHEN basis = 'domains' THEN effective_members
                          ELSE effective_domains END) AS effective_domains
    FROM named JOIN members USING (interval) LEFT JOIN spread USING (interval)
    GROUP BY interval, tokens, CASE WHEN rank <= $members THEN member END
    ORDER BY place, interval"""
# The measurements of the members with the highest means. Losses are used if there are no scores.
SCORES_QUERY = """
    WITH all_scores AS (
        SELECT *, bool_or(score IS NOT NULL) OVER () AS scored FROM scores WHERE run = $run),
    measured AS (
        SELECT step, member, scored, CASE WHEN scored THEN score ELSE loss END AS value,
               CASE WHEN scored THEN error END AS error,
               avg(value) OVER (PARTITION BY member) AS mean
        FROM all_scores WHERE value IS NOT NULL)
    SELECT measured.*, d.terms[1:3] AS terms,
           dense_rank() OVER (ORDER BY mean DESC, member) AS place
    FROM measured LEFT JOIN domains AS d
    ON $basis = 'domains' AND d.level = $level AND d.domain = TRY_CAST(member AS BIGINT)
    QUALIFY place <= $limit ORDER BY place, step"""
