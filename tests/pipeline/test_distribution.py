import numpy as np
import pyarrow as pa
import pytest

from data_catalog.format import tables
from data_catalog.format.layout import Levels
from pipeline.config import Distributions
from pipeline.distribution import (
    all_distributions,
    corpus_distributions,
    distance_shares,
    distribution_rows,
    smoothed_shares,
    target_table,
)

LEVELS = Levels((2, 4))
TOKENS = np.array([10.0, 30, 40, 0])


def test_without_smoothing_the_hard_form_is_a_histogram():
    found = smoothed_shares(np.array([3.0, 0, 1, 0]), TOKENS, LEVELS, 0)
    assert found[2].tolist() == [0.75, 0.25]
    assert found[4].tolist() == [0.75, 0, 0.25, 0]


def test_smoothing_adds_documents_in_proportion_to_the_corpus_inside_the_parent():
    found = smoothed_shares(np.array([3.0, 0, 1, 0]), TOKENS, LEVELS, 4)
    # At the top: (3 + 4/2) / 8 and (1 + 4/2) / 8. Below domain 0: (3 + 4/4) / 7 and
    # (0 + 4 * 3/4) / 7. Below domain 1 the corpus has only leaf 2.
    assert found[2] == pytest.approx([5 / 8, 3 / 8])
    assert found[4] == pytest.approx([5 / 8 * 4 / 7, 5 / 8 * 3 / 7, 3 / 8, 0])


def test_levels_add_up_with_any_smoothing():
    counts, tokens = (
        np.array([0.0, 0, 5, 1, 0, 0, 0, 2]),
        np.array([5.0, 0, 7, 1, 9, 4, 0, 0]),
    )  # the corpus lacks domain 3 of 4
    for s in (0, 0.5, 100):
        found = smoothed_shares(counts, tokens, Levels((2, 4, 8)), s)
        assert found[2].sum() == pytest.approx(1)
        assert found[4].reshape(2, 2).sum(axis=1) == pytest.approx(found[2])
        assert found[8].reshape(4, 2).sum(axis=1) == pytest.approx(found[4])
    assert found[8][6:] == pytest.approx([0, found[4][3]])


def test_much_smoothing_gives_the_natural_distribution():
    assert smoothed_shares(np.array([1.0, 0, 0, 0]), TOKENS, LEVELS, 1e12)[4] == pytest.approx(
        TOKENS / 80
    )


def test_the_distance_form_is_a_softmax_over_squared_distances():
    x = np.array([[1.0, 0.0]], np.float32)
    centroids = np.array(
        [[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]], np.float32
    )  # at squared distances 0, 2 and 4
    weights = distance_shares(x, centroids, temperature=2.0, nearest=16)
    e = np.exp(-1)
    assert weights == pytest.approx(np.array([1, e, e * e]) / (1 + e + e * e))


def test_the_distance_form_uses_the_nearest_nonempty_domains():
    x = np.array([[1.0, 0.0], [0.0, 1.0]], np.float32)
    centroids = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]], np.float32)
    assert distance_shares(x, centroids, temperature=0.05, nearest=1).tolist() == [0, 0.5, 0.5]
    assert distance_shares(x, centroids, temperature=0.05, nearest=16)[0] == 0


def test_natural_follows_tokens_and_uniform_skips_empty_domains():
    table = corpus_distributions(Levels((2, 4)), np.array([10, 0, 20, 10]))
    found = [(row["name"], row["level"], row["domain"], row["weight"]) for row in table.to_pylist()]
    third = pytest.approx(1 / 3)
    assert found == [
        ("natural", 2, 0, 0.25),
        ("natural", 2, 1, 0.75),
        ("uniform", 2, 0, 0.5),
        ("uniform", 2, 1, 0.5),
        ("natural", 4, 0, 0.25),
        ("natural", 4, 2, 0.5),
        ("natural", 4, 3, 0.25),
        ("uniform", 4, 0, third),
        ("uniform", 4, 2, third),
        ("uniform", 4, 3, third),
    ]


def test_only_positive_weights_are_stored():
    assert distribution_rows("law", "hard", 4, np.array([0, 1.0, 0, 0])).to_pylist() == [
        {"name": "law", "kind": "hard", "level": 4, "domain": 1, "weight": 1.0}
    ]


def documents(*rows):
    """Rows are (split, leaf, distance)."""
    full = [
        {"split": split, "leaf": leaf, "distance": distance, "tokens": 5}
        for split, leaf, distance in rows
    ]
    return pa.Table.from_pylist(full, tables.TARGET)


LAW = documents(
    ("align", 0, 0.1),
    ("align", 0, 0.3),
    ("align", 2, 0.1),
    ("validation", 1, 0.1),
    ("test", 3, 0.1),
)


def test_a_catalog_has_natural_uniform_and_both_kinds_of_each_target():
    distances = pa.concat_tables(
        [
            distribution_rows("law", "distance", 4, np.eye(4)[2]),
            distribution_rows("law", "hard", 4, np.eye(4)[3]),
        ]
    )
    found = all_distributions(
        {"law": LAW}, distances, np.array([10, 30, 40, 0]), LEVELS, Distributions(smoothing=3)
    )
    law = [
        (row["kind"], row["level"], row["domain"], round(row["weight"], 6))
        for row in found.to_pylist()
        if row["name"] == "law"
    ]
    assert law == [
        *(
            ("hard", 2, 0, 0.583333),
            ("hard", 2, 1, 0.416667),
        ),  # (2 + 3/2) / 6, (1 + 3/2) / 6: the align split alone
        *(("hard", 4, 0, 0.320833), ("hard", 4, 1, 0.2625), ("hard", 4, 2, 0.416667)),
        ("distance", 4, 2, 1.0),
    ]
    assert {row["name"] for row in found.to_pylist()} == {"natural", "uniform", "law"}
    assert found.schema.equals(tables.DISTRIBUTIONS)


def test_the_table_of_targets():
    quantiles = [[0.0, 0.0, 0.0, 0.0, 0.2]] * 3 + [[]]  # leaf 3 has no documents
    domains = pa.table(
        {"level": [2, 2, 4, 4, 4, 4], "distance_quantiles": [quantiles[0]] * 2 + quantiles}
    )
    found = all_distributions(
        {"law": LAW},
        tables.DISTRIBUTIONS.empty_table(),
        np.array([1, 1, 1, 1]),
        LEVELS,
        Distributions(),
    )
    assert target_table({"law": LAW}, found, domains, LEVELS).to_pylist() == [
        {
            **{"name": "law", "documents": 5, "align": 3, "validation": 1, "test": 1, "tokens": 25},
            **{
                "mean_distance": pytest.approx(0.14),
                "out_of_distribution": 0.4,
                "main_domains": [0, 2],
            },
            "effective_domains": [pytest.approx(3 / 2 ** (2 / 3))] * 2,
        }
    ]
    assert target_table({}, found, domains, LEVELS).schema.equals(tables.TARGETS)
