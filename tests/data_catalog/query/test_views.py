"""The views and macros over a catalog's tables, on tables made by hand."""

import duckdb
import numpy as np
import pyarrow as pa
import pytest

from data_catalog.format.layout import Levels
from data_catalog.format.tables import DISTRIBUTIONS, DOCUMENTS, DOMAINS, VERDICTS
from data_catalog.query.views import derived_statements

LEVELS = Levels((2, 4))
WEIGHTS = [
    *(("natural", "natural", 4, 0, 0.5), ("natural", "natural", 4, 1, 0.5)),
    *(("law", "hard", 4, 0, 0.25), ("law", "hard", 4, 1, 0.25), ("law", "hard", 4, 3, 0.5)),
    *(("art", "hard", 4, 2, 1.0), ("art", "distance", 4, 0, 1.0), ("art", "hard", 2, 1, 1.0)),
    *(
        ("sea", "hard", 4, 3, 0.75),
        ("sea", "hard", 4, 1, 0.25),
        ("sea", "distance", 4, 2, 0.5),
        ("sea", "distance", 4, 3, 0.25),
    ),
    ("sea", "distance", 4, 0, 0.25),
]
TREE = [(2, 0, None), (2, 1, None), (4, 0, 0), (4, 1, 0), (4, 2, 1), (4, 3, 1)]
JUDGED = [
    *((0, None), (0, "dedup.digest"), (0, None)),  # kept, a copy, kept
    *((0b001, "web.words"), (0b101, "web.words"), (0b110, "web.symbols")),
    (1 << 63 | 0b1, "books.words"),
]


@pytest.fixture(scope="module")
def query():
    domains = [
        {"level": k, "domain": i, "parent": above, "documents": 10 * k + i, "terms": [f"w{i}"]}
        for k, i, above in TREE
    ]
    found = {
        "distributions": (
            DISTRIBUTIONS,
            [dict(zip(DISTRIBUTIONS.names, row, strict=True)) for row in WEIGHTS],
        ),
        "domains": (DOMAINS, domains),
        "verdicts": (
            VERDICTS,
            [{"characters": 10, "failed_rules": mask, "reason": reason} for mask, reason in JUDGED],
        ),
        "documents": (
            DOCUMENTS,
            [
                {"doc_id": f"{leaf}/{i}", "leaf": leaf}
                for leaf in (0, 1, 3)
                for i in range(leaf + 1)
            ],
        ),
    }
    with duckdb.connect() as connection:
        for name, (schema, rows) in found.items():
            connection.register(
                "made",
                pa.Table.from_pylist(
                    [{n: row.get(n) for n in schema.names} for row in rows], schema
                ),
            )
            connection.execute(f"CREATE TABLE {name} AS FROM made")
            connection.unregister("made")
        for statement in derived_statements(found.keys(), LEVELS):
            connection.execute(statement)
        yield lambda sql: connection.sql(sql).fetchall()


def test_statistics_of_distributions(query):
    entropy = 0.5 * np.log(4) + 0.5 * np.log(2)
    assert query(
        "FROM distribution_statistics WHERE level = 4 AND kind <> 'distance' AND name <> 'sea'"
    ) == [
        ("art", "hard", 4, 1, pytest.approx(0), 1.0, 2, pytest.approx(1)),
        ("law", "hard", 4, 3, pytest.approx(entropy), 0.5, 3, pytest.approx(2**1.5)),
        ("natural", "natural", 4, 2, pytest.approx(np.log(2)), 0.5, 0, pytest.approx(2)),
    ]


def divergence(p, q):
    """Jensen-Shannon, by its definition."""
    p, q = np.array(p), np.array(q)
    m = (p + q) / 2
    return sum(w[w > 0] @ np.log(w[w > 0] / m[w > 0]) for w in (p, q)) / 2


def test_overlaps_of_two_distributions(query):
    half_and_law = divergence([0.5, 0.5, 0], [0.25, 0.25, 0.5])
    columns = "other, kind, overlap, hellinger, jensen_shannon"
    assert query(
        f"SELECT {columns} FROM distribution_overlaps "
        "WHERE level = 4 AND name = 'natural' AND other <> 'sea' ORDER BY ALL"
    ) == [
        (
            "art",
            "distance",
            0.5,
            pytest.approx((1 - 0.5**0.5) ** 0.5),
            pytest.approx(divergence([0.5, 0.5], [1, 0])),
        ),
        ("art", "hard", 0, 1, pytest.approx(np.log(2))),
        (
            "law",
            "hard",
            0.5,
            pytest.approx((1 - 2 * 0.125**0.5) ** 0.5),
            pytest.approx(half_and_law),
        ),
    ]


def test_overlaps_have_both_directions_and_do_not_mix_kinds(query):
    assert query(
        "SELECT name, other, level FROM distribution_overlaps "
        "WHERE kind = 'hard' AND 'sea' NOT IN (name, other) ORDER BY ALL"
    ) == [
        *(("art", "law", 4), ("art", "natural", 4), ("law", "art", 4)),
        *(("law", "natural", 4), ("natural", "art", 4), ("natural", "law", 4)),
    ]


def test_the_macro_for_one_pair_agrees_with_the_view(query):
    found = query("FROM overlap('sea', 'natural')")
    assert [row[:3] for row in found] == [("hard", 4, 0.25), ("distance", 4, 0.25)]
    columns = "kind, level, overlap, hellinger, jensen_shannon"
    assert found == query(
        f"SELECT {columns} FROM distribution_overlaps "
        "WHERE name = 'sea' AND other = 'natural' ORDER BY kind DESC"
    )


@pytest.mark.parametrize(
    "call", ["overlap('law', 'lore')", "overlap('lore', 'law')", "nearest_domains('lore')"]
)
def test_an_unknown_distribution_is_an_error(query, call):
    with pytest.raises(duckdb.Error, match=r"distribution lore: .*SELECT"):
        query(f"FROM {call}")


def test_nearest_domains_are_ordered_by_both_kinds(query):
    assert query("FROM nearest_domains('sea', 1)") == [
        (4, 3, 1, 0.75, 3, 0.25, 43, None, ["w3"]),
        (4, 2, None, None, 1, 0.5, 42, None, ["w2"]),
    ]
    assert query("SELECT domain, rank, distance_rank FROM nearest_domains('sea', k := 2)") == [
        (3, 1, 3),
        (1, 2, None),
        (2, None, 1),
        (0, None, 2),
    ]
    assert query("SELECT level, domain FROM nearest_domains('art')") == [(2, 1), (4, 2), (4, 0)]


def test_every_domain_has_its_place_in_the_tree(query):
    columns = "level, domain, depth, parent_level, parent, path"
    below = "child_level, children, first_leaf, last_leaf"
    assert query(f"SELECT {columns}, {below} FROM domain_tree") == [
        (2, 0, 0, None, None, [0], 4, [0, 1], 0, 1),
        (2, 1, 0, None, None, [1], 4, [2, 3], 2, 3),
        (4, 0, 1, 2, 0, [0, 0], None, [], 0, 0),
        (4, 1, 1, 2, 0, [0, 1], None, [], 1, 1),
        (4, 2, 1, 2, 1, [1, 2], None, [], 2, 2),
        (4, 3, 1, 2, 1, [1, 3], None, [], 3, 3),
    ]


def test_a_domain_s_documents_are_those_of_its_leaves(query):
    for level in LEVELS.granularities:
        for domain in range(level):
            expected = query(
                f"SELECT doc_id FROM documents "
                f"WHERE leaf // {LEVELS.span(level)} = {domain} ORDER BY ALL"
            )
            assert (
                query(f"SELECT doc_id FROM domain_docs({level}, {domain}) ORDER BY ALL") == expected
            )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("3, 0", "level 3: .* 2, 4"),
        ("0, 0", "level 0: .* 2, 4"),
        ("1000, 0", "level 1000: .* 2, 4"),
        ("2, -1", "domain -1: .* 0 to 1"),
        ("4, 4", "domain 4: .* 0 to 3"),
    ],
)
def test_a_missing_domain_is_an_error(query, arguments, message):
    with pytest.raises(duckdb.Error, match=message):
        query(f"FROM domain_docs({arguments})")


def test_drops_per_rule(query):
    """Rule 2 of `web` is never the first that a document fails: nothing names it."""
    seventh = pytest.approx(1 / 7)
    assert query("FROM rules") == [
        ("books", 0, "words", 1, 10, seventh, 0, 1, 10),
        ("books", 63, None, 1, 10, seventh, 0, 0, 0),
        ("web", 0, "words", 2, 20, pytest.approx(2 / 7), 1, 2, 20),
        ("web", 1, "symbols", 1, 10, seventh, 0, 1, 10),
        ("web", 2, None, 2, 20, pytest.approx(2 / 7), 0, 0, 0),
    ]


def test_views_without_their_tables_are_left_out():
    made = [
        statement.split()[2].split("(")[0]
        for statement in derived_statements({"distributions"}, LEVELS)
    ]
    assert made == ["distribution_statistics", "distribution_overlaps", "overlap"]
