import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_catalog import tables
from data_catalog.layout import Levels
from data_catalog.records import Account
from pipeline.describe import agreement, describe
from pipeline.parts import make_part

LEVELS = Levels((2, 4))


def shard(folder, rows):
    """Rows are (leaf, text, distance, source)."""
    full = [
        {"doc_id": f"d{i}", "leaf": leaf, "text": text, "distance": distance, "source": source, "tokens": 10, "characters": len(text)}
        for i, (leaf, text, distance, source) in enumerate(rows)
    ]

    def make(out):
        pq.write_table(pa.Table.from_pylist(full, tables.DOCUMENTS), out / "documents.parquet")
        return Account()

    return make_part(folder, str(rows), make)


@pytest.fixture
def domains(tmp_path):
    shards = [
        shard(tmp_path / "0", [(0, "whales swim whales", 0.3, "sea"), (0, "whales dive", 0.1, "sea"), (1, "stars shine 42", 0.2, "sky")]),
        shard(tmp_path / "1", [(3, "<b>bread</b> rises", 0.01, "food"), (3, "bread bakes", 0.01, "food")]),
    ]
    part = describe(shards, tmp_path / "describe", LEVELS)
    return {(row["level"], row["domain"]): row for row in pq.read_table(part.folder / "domains.parquet").to_pylist()}


def test_every_domain_of_every_level_has_a_row(domains):
    assert sorted(domains) == [(2, 0), (2, 1), (4, 0), (4, 1), (4, 2), (4, 3)]
    assert [domains[4, d]["parent"] for d in range(4)] == [0, 0, 1, 1]
    assert domains[2, 0]["parent"] is None


def test_sizes_and_distances(domains):
    assert (domains[2, 0]["documents"], domains[2, 0]["tokens"]) == (3, 30)
    assert domains[2, 0]["mean_distance"] == pytest.approx(0.2)
    assert domains[2, 0]["distance_quantiles"][2] == pytest.approx(0.2)
    assert domains[4, 2]["documents"] == 0


def test_terms_are_what_sets_a_domain_apart(domains):
    assert domains[4, 0]["terms"][0] == "whales"
    assert domains[2, 1]["terms"][0] == "bread"
    assert set(domains[2, 0]["terms"]) == {"whales", "swim", "dive", "stars", "shine"}


def test_exemplars_are_the_nearest_and_sources_the_most_frequent(domains):
    assert domains[4, 0]["exemplars"] == ["d1", "d0"]
    assert domains[2, 0]["top_sources"] == ["sea", "sky"]


def test_agreement_with_known_labels_is_one_where_they_nest():
    found = agreement(["a", "a", "b", "b"], np.array([0, 1, 2, 3]), LEVELS)
    assert found == {2: pytest.approx(1.0), 4: pytest.approx(2 / 3)}  # 4 domains: I = ln 2, entropies ln 2 and ln 4


def test_what_looks_wrong_is_flagged(domains):
    assert domains[4, 2]["flags"] == ["empty"]
    assert domains[4, 3]["flags"] == ["boilerplate", "tiny"]
    assert domains[4, 1]["flags"] == ["tiny"]
