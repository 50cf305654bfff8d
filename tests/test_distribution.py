import numpy as np
import pytest

from data_catalog.layout import Levels
from pipeline.distribution import by_distance, corpus_distributions, hard, to_table


def test_the_hard_form_is_a_histogram():
    assert hard(np.array([0, 2, 2, 3]), 5).tolist() == [0.25, 0, 0.5, 0.25, 0]


def test_the_distance_form_is_a_softmax_over_squared_distances():
    x = np.array([[1.0, 0.0]], np.float32)
    centroids = np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]], np.float32)  # at squared distances 0, 2 and 4
    weights = by_distance(x, centroids, temperature=2.0)
    e = np.exp(-1)
    assert weights == pytest.approx(np.array([1, e, e * e]) / (1 + e + e * e))


def test_the_distance_form_looks_at_the_nearest_and_never_at_empty_domains():
    x = np.array([[1.0, 0.0], [0.0, 1.0]], np.float32)
    centroids = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]], np.float32)
    assert by_distance(x, centroids, nearest=1).tolist() == [0, 0.5, 0.5]
    assert by_distance(x, centroids, nearest=16)[0] == 0


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
    assert to_table("law", "hard", 4, np.array([0, 1.0, 0, 0])).to_pylist() == [
        {"name": "law", "kind": "hard", "level": 4, "domain": 1, "weight": 1.0}
    ]
