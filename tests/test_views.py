"""The views over distributions, on a table made by hand."""

import duckdb
import numpy as np
import pyarrow as pa
import pytest

from data_catalog.tables import DISTRIBUTIONS
from data_catalog.views import DERIVED

ROWS = [
    *(("natural", "natural", 4, 0, 0.5), ("natural", "natural", 4, 1, 0.5)),
    *(("law", "hard", 4, 0, 0.25), ("law", "hard", 4, 1, 0.25), ("law", "hard", 4, 3, 0.5)),
    *(("art", "hard", 4, 2, 1.0), ("art", "distance", 4, 0, 1.0), ("art", "hard", 2, 1, 1.0)),
]


@pytest.fixture
def query():
    table = pa.Table.from_pylist([dict(zip(DISTRIBUTIONS.names, row, strict=True)) for row in ROWS], DISTRIBUTIONS)
    with duckdb.connect() as connection:
        connection.register("distributions", table)
        for name in ("distribution_statistics", "distribution_overlaps"):
            connection.execute(DERIVED[name].replace("CREATE VIEW", "CREATE TEMP VIEW"))
        yield lambda sql: connection.sql(sql).fetchall()


def test_how_spread_a_distribution_is(query):
    entropy = 0.5 * np.log(4) + 0.5 * np.log(2)
    assert query("FROM distribution_statistics WHERE level = 4 AND kind <> 'distance'") == [
        ("art", "hard", 4, 1, pytest.approx(0), 1.0, 2, pytest.approx(1)),
        ("law", "hard", 4, 3, pytest.approx(entropy), 0.5, 3, pytest.approx(2**1.5)),
        ("natural", "natural", 4, 2, pytest.approx(np.log(2)), 0.5, 0, pytest.approx(2)),
    ]


def test_how_much_two_distributions_share(query):
    assert query("SELECT other, kind, overlap, hellinger FROM distribution_overlaps WHERE level = 4 AND name = 'natural' ORDER BY ALL") == [
        ("art", "distance", 0.5, pytest.approx((1 - 0.5**0.5) ** 0.5)),
        ("art", "hard", 0, 1),
        ("law", "hard", 0.5, pytest.approx((1 - 2 * 0.125**0.5) ** 0.5)),
    ]


def test_every_pair_is_there_in_both_directions_and_kinds_are_not_mixed(query):
    assert query("SELECT name, other, level FROM distribution_overlaps WHERE kind = 'hard' ORDER BY ALL") == [
        *(("art", "law", 4), ("art", "natural", 4), ("law", "art", 4)),
        *(("law", "natural", 4), ("natural", "art", 4), ("natural", "law", 4)),
    ]
