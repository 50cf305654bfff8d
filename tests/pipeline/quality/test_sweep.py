import pytest

from data_catalog.errors import UserError
from pipeline.config import Bounds
from pipeline.quality.sweep import sweep
from tests.helpers.tiny_signals import write_signals

COLUMNS = ["bound", "most_documents", "most_characters", "least_documents", "least_characters"]


@pytest.fixture
def catalog(tmp_path):
    return write_signals(tmp_path)


def rows(table):
    return [tuple(row.values()) for row in table.select(COLUMNS).to_pylist()]


def test_a_sweep_varies_one_bound_and_keeps_other_rules(catalog):
    # The other rules and dedup leave three of 6 documents. They have 5 sentences, 2 sentences and
    # no signal.
    assert rows(sweep(catalog, "sentences", quantiles=(0, 0.5, 1))) == [
        (1, 1 / 6, 3 / 200, 3 / 6, 153 / 200),
        (4, 2 / 6, 53 / 200, 2 / 6, 103 / 200),
        (5, 3 / 6, 153 / 200, 2 / 6, 103 / 200),
    ]


def test_equal_quantiles_are_merged_into_one_row(catalog):
    table = sweep(
        catalog, "curly_bracket", thresholds={"sentences": Bounds(least=0)}, quantiles=(0, 0.1, 0.5)
    )
    assert table["bound"].to_pylist() == [0]
    assert table["quantile"].to_pylist() == [0.6]
    assert table["most_documents"].to_pylist() == [3 / 6]


def test_null_is_treated_as_the_rule_states(catalog):
    strict = sweep(
        catalog, "sentences", thresholds={"sentences": Bounds(null="drop")}, quantiles=(1,)
    )
    assert rows(strict) == [(5, 2 / 6, 150 / 200, 1 / 6, 100 / 200)]


def test_a_signal_without_a_rule(catalog):
    with_all_rules = sweep(catalog, "rps_doc_num_sentences", quantiles=(1,))
    assert rows(with_all_rules) == [(5, 2 / 6, 103 / 200, 2 / 6, 103 / 200)]


def test_a_signal_that_no_document_has_is_refused(catalog):
    with pytest.raises(UserError, match=r"sweep .*rps_doc_ldnoobw_words"):
        sweep(catalog, "bad_words")
