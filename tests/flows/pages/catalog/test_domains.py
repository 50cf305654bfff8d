"""Data of the catalog page: columns of the levels, examples, centroids and signals."""

from pathlib import Path

import numpy as np
import pytest

import data_catalog
from data_catalog.format.centroids import project
from flows.pages.catalog import domains, signals, write_catalog_page
from tests.helpers.domains_catalog import TERMS, TOKENS, write_domains_catalog
from tests.helpers.page_text import data_of


@pytest.fixture
def catalog(tmp_path: Path) -> Path:
    return write_domains_catalog(tmp_path / "catalog")


def test_all_columns_of_a_level(tmp_path: Path, catalog: Path) -> None:
    data = data_of(write_catalog_page(catalog, tmp_path / "page.html"))
    coarse, fine = data["levels"]
    assert [level["level"] for level in (coarse, fine)] == [2, 4]
    assert (fine["domain"], fine["documents"], fine["tokens"]) == (
        [0, 1, 2, 3],
        [10, 20, 30, 40],
        list(TOKENS),
    )
    assert (fine["terms"], fine["distance"], fine["radius"][0]) == (
        TERMS,
        [0.25, 0.5, 0.75, 1],
        0.5,
    )
    assert (fine["quantiles"][0], fine["flags"]) == (
        [0.1, 0.2, 0.3, 0.4, 0.5],
        [["tiny"], [], [], []],
    )
    sites = [[data["names"][row[k]] for k in (0, 2)] for row in fine["sources"]]
    assert (sites[1], fine["sources"][1][1::2]) == (["site1.org", None], [0.75, 0.25])
    assert fine["natural"] == [0.1, 0.2, 0.3, 0.4]
    assert fine["weights"] == {"hard": [[0, 1, 0, 0]], "distance": [[0.25] * 4]}
    assert (data["targets"], data["finer"], data["flags"]["tiny"]) == (
        ["law"],
        [],
        "with fewer than 5 documents",
    )


def test_dropped_shares_are_weighted_by_source(tmp_path: Path, catalog: Path) -> None:
    """Shares of rules are summed per source, and weighted by the shares of the known sources."""
    data = data_of(write_catalog_page(catalog, tmp_path / "page.html"))
    assert data["levels"][1]["dropped"] == [pytest.approx(0.5), 0, 0, 0]


def test_examples_are_the_best_of_each_kind(tmp_path: Path, catalog: Path) -> None:
    data = data_of(write_catalog_page(catalog, tmp_path / "page.html"))
    found = data["levels"][1]["examples"][2]
    assert [(data["kinds"][kind], snippet) for kind, _, _, _, snippet in found if kind == 0] == [
        ("nearest", f"an example nearest {rank}") for rank in range(3)
    ]
    assert len(found) == 9
    assert (data["names"][found[0][2]], found[0][1]) == ("site0.org", 0.5)


def test_a_large_level_has_only_its_largest_domains_and_fewer_examples(
    tmp_path: Path, catalog: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(domains, "MAXIMUM_LEVEL_DOMAINS", 3)
    monkeypatch.setattr(domains, "MAXIMUM_PAGE_EXAMPLES", 12)
    data = data_of(write_catalog_page(catalog, tmp_path / "page.html"))
    assert ([level["level"] for level in data["levels"]], data["finer"]) == ([2], [4])
    assert [len(row) for row in data["levels"][0]["examples"]] == [
        6,
        6,
    ]  # 12 // (3 kinds * 2 domains) of each kind
    monkeypatch.setattr(domains, "MAXIMUM_LEVEL_DOMAINS", 1)
    only = data_of(write_catalog_page(catalog, tmp_path / "page.html"))["levels"]
    assert [
        (level["level"], level["domain"], level["natural"], len(level["places"])) for level in only
    ] == [(2, [1], [0.7], 1)]


def test_the_map_uses_the_principal_axes() -> None:
    """Points on a plane in 3D keep their distances, and an empty cell has no position."""
    plane = np.array([[3.0, 0, 1], [-3, 0, 1], [0, 1, 1], [0, -1, 1], [0, 0, 0]])
    places, share = project({5: plane, 1: np.array([[0.0, 0, 1]])})
    assert places[5][:4] == pytest.approx(np.array([[3, 0], [-3, 0], [0, 1], [0, -1]]))
    assert np.isnan(places[5][4]).all()
    assert (places[1].tolist(), share) == ([[0, 0]], pytest.approx(1))


def test_the_map_of_zero_or_one_centroids() -> None:
    places, share = project({1: np.array([[0.6, 0.8]])})
    assert (places[1].tolist(), share) == ([[0, 0]], 0)
    places, share = project({2: np.zeros((2, 4))})
    assert (np.isnan(places[2]).all(), share) == (True, 0)


def test_quality_signals_are_means_over_the_documents_of_a_domain(
    tmp_path: Path, built: tuple, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = data_of(write_catalog_page(built[0], tmp_path / "page.html"))
    place = data["signals"].index("share of unique words")
    for level in data["levels"]:
        query = f"""SELECT avg(signals['rps_doc_frac_unique_words']) FROM documents
            GROUP BY leaf // {data["levels"][-1]["level"] // level["level"]} ORDER BY min(leaf)"""
        expected = [mean for (mean,) in data_catalog.open(built[0]).sql(query).fetchall()]
        assert [mean for mean in level["signals"][place] if mean is not None] == pytest.approx(
            expected, rel=1e-5
        )
    monkeypatch.setattr(signals, "MAXIMUM_SIGNAL_DOCUMENTS", 10)
    data = data_of(write_catalog_page(built[0], tmp_path / "page.html"))
    assert (data["signals"], data["levels"][0]["signals"]) == ([], [])
