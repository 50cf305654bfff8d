import logging

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_catalog.format import tables
from data_catalog.format.accounts import Account
from data_catalog.format.layout import Levels
from pipeline.config import Labels
from pipeline.describe.domains import describe_domains
from pipeline.describe.stage import describe_part
from pipeline.parts import make_part
from tests.pipeline.describe.test_stage import SEA, shard

LEVELS = Levels((2, 4))
BREAD = [(3, "<b>bread</b> rises", 0.01, "food"), (3, "bread bakes", 0.01, "food")]


def tree_part(folder):
    """The top cells are the axes. First leaves are at 60 degrees from them, and others on them."""
    leaves = np.array([[0.5, 0.75**0.5], [1, 0], [0, 0], [0, 1]], np.float32)

    def make(out):
        np.savez(out / "centroids.npz", **{"2": np.eye(2, dtype=np.float32), "4": leaves})
        return Account()

    return make_part(folder, "tree", make)


@pytest.fixture
def stored(tmp_path):
    return [shard(tmp_path / "0", SEA), shard(tmp_path / "1", BREAD)]


@pytest.fixture
def described(stored, tmp_path):
    return [describe_part([part], tmp_path / "described" / part.name, LEVELS) for part in stored]


@pytest.fixture
def whole(described, stored, tmp_path):
    return describe_domains(
        described,
        stored,
        tree_part(tmp_path / "tree"),
        tmp_path / "domains",
        None,
        LEVELS,
    )


@pytest.fixture
def domains(whole):
    table = pq.read_table(whole.folder / "domains.parquet")
    assert table.schema.equals(tables.DOMAINS)
    return {(row["level"], row["domain"]): row for row in table.to_pylist()}


def test_every_domain_of_every_level_has_a_row(domains):
    assert list(domains) == [(2, 0), (2, 1), (4, 0), (4, 1), (4, 2), (4, 3)]
    assert [row["parent"] for row in domains.values()] == [None, None, 0, 0, 1, 1]
    assert [row["documents"] for row in domains.values()] == [3, 2, 2, 1, 0, 2]


def test_an_empty_domain_has_no_values(domains):
    assert domains[4, 2] == {
        **{
            "level": 4,
            "domain": 2,
            "parent": 1,
            "documents": 0,
            "tokens": 0,
            "radius": None,
            "mean_distance": None,
        },
        **{
            name: []
            for name in (
                "distance_quantiles",
                "terms",
                "nearest",
                "typical",
                "boundary",
                "top_sources",
                "languages",
            )
        },
        "flags": ["empty"],
    }


def test_the_radius_is_about_the_centroid_of_the_domain(domains):
    assert domains[4, 0]["radius"] == pytest.approx(0.25**0.5)
    assert domains[2, 1]["radius"] == pytest.approx(0.01**0.5)  # one leaf, on its parent's centroid
    # The mean cosine with the leaf is 0.875. Leaf 0 has two documents and cosine 0.5 with its
    # parent, and leaf 1 has cosine 1.
    assert domains[2, 0]["radius"] == pytest.approx((2 - 2 * (2 * 0.875 * 0.5 + 0.875) / 3) ** 0.5)


def test_terms_and_flags_depend_on_other_domains(domains):
    assert domains[4, 0]["terms"][0] == "whales"
    assert domains[2, 1]["terms"] == ["bread", "bakes", "rises"]
    assert [domains[4, d]["flags"] for d in (0, 1, 3)] == [
        ["tiny"],
        ["tiny"],
        ["tiny", "boilerplate"],
    ]


def test_all_examples_are_written(whole):
    shown = pq.read_table(whole.folder / "examples.parquet")
    assert shown.num_rows == 18 + 12
    assert (
        shown.filter(pa.compute.equal(shown["doc_id"], "1/0"))["snippet"].to_pylist()
        == ["<b>bread</b> rises"] * 6
    )


def test_labels_are_compared_with_the_domains(described, stored, tmp_path, caplog):
    (tmp_path / "labels.csv").write_text("doc_id,subject\n0/0,sea\n0/1,sea\n1/0,food\n")
    labels = Labels(path=tmp_path / "labels.csv", column="subject")
    caplog.set_level(logging.INFO)
    part = describe_domains(
        described, stored, tree_part(tmp_path / "tree"), tmp_path / "labelled", labels, LEVELS
    )
    health = pq.read_table(part.folder / "health.parquet").to_pylist()
    assert {row["measure"]: row["value"] for row in health if row["level"] == 2} == {
        **{
            "domains": 2,
            "effective_domains": pytest.approx(np.exp(0.6 * np.log(5 / 3) + 0.4 * np.log(2.5))),
            "largest_by_mean": 1.2,
        },
        **{
            "empty": 0,
            "tiny": 2,
            "boilerplate": 1,
            "catch_all": 0,
            "one_source": 0,
            "mixed_languages": 0,
        },
        **{"labelled": 3, "nmi": 1, "purity": 1},
    }
    assert "level 2: the effective number of domains is 2.0" in caplog.text
    (tmp_path / "labels.csv").write_text("doc_id,subject\n0/0,sky\n")
    changed = describe_domains(
        described, stored, tree_part(tmp_path / "tree"), tmp_path / "labelled", labels, LEVELS
    )
    assert changed.fingerprint != part.fingerprint
