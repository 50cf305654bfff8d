"""The catalog page: text, tables, hostile and damaged content."""

import base64
import hashlib
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_catalog.errors import UserError
from data_catalog.format import tables
from data_catalog.format.centroids import read_centroids
from data_catalog.format.files import open_files
from data_catalog.format.layout import Layout
from flows.pages.catalog import write_catalog_page
from tests.helpers.domains_catalog import write_domains_catalog
from tests.helpers.manifests import accept_files, change_manifest
from tests.helpers.page_text import data_of, words_of

HOSTILE = (
    "</script><script>document.title='ran'</script>"
    "<img src=x onerror=\"document.title='ran'\"> \u202egnp.exe\u2028{{data}}<!--"
)


@pytest.fixture
def catalog(tmp_path: Path) -> Path:
    return write_domains_catalog(tmp_path / "catalog")


def test_the_tables_show_dropped_documents_and_times(tmp_path: Path, catalog: Path) -> None:
    words = words_of(write_catalog_page(catalog, tmp_path / "page.html"))
    assert "100 documents with 10k tokens. Domains per level: 2, 4. Version 1, 1 target." in words
    assert "Of 200 documents read, 100 (50.0%) were dropped" in words
    assert "gopher.words quality 80 40.00% 600 site0.org (20), an example (1)" in words
    assert "source 4.0 40.0% 200 50 2,250" in words
    assert "tree 5.0 50.0% – – –" in words
    assert "Domains with fewer than 5 documents 2 1 4 –" in words


def test_a_catalog_without_times_of_stages(tmp_path: Path, catalog: Path) -> None:
    change_manifest(catalog, stage_seconds={})
    assert "no times of stages" in words_of(write_catalog_page(catalog, tmp_path / "page.html"))


def test_the_page_of_a_real_build(tmp_path: Path, built: tuple) -> None:
    data = data_of(write_catalog_page(built[0], tmp_path / "page.html"))
    levels = data["levels"]
    assert len({sum(level["documents"]) for level in levels}) == 1
    assert all(
        sum(level["weights"]["hard"][t]) == pytest.approx(1, abs=1e-4)
        for level in levels
        for t in range(len(data["targets"]))
    )
    assert all(sum(map(len, level["examples"])) > 0 for level in levels)


def test_the_policy_allows_exactly_the_inlined_scripts_and_style(
    tmp_path: Path, catalog: Path
) -> None:
    text = write_catalog_page(catalog, tmp_path / "page.html").read_text()
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)[1]
    inlined = re.findall(r"<style>(.*?)</style>", text, re.S) + re.findall(
        r"<script>(.*?)</script>", text, re.S
    )
    assert policy.startswith("default-src 'none'; ")
    assert re.findall(r"sha256-([^']*)", policy) == [
        base64.b64encode(hashlib.sha256(part.encode()).digest()).decode() for part in inlined
    ]
    assert not re.search(r"""(?:src|href)=["']?(?!data:|#)[a-z]*:?//""", text)


def test_hostile_text_stays_text(tmp_path: Path) -> None:
    catalog = write_domains_catalog(
        tmp_path / "catalog", text=HOSTILE, target=HOSTILE[:40].replace("/", "|")
    )
    page = write_catalog_page(catalog, tmp_path / "page.html")
    text = page.read_text()
    honest = write_catalog_page(
        write_domains_catalog(tmp_path / "other"), tmp_path / "honest.html"
    ).read_text()
    for tag in ("<script", "</script", "<img", "<!--"):
        assert text.count(tag) == honest.count(tag)
    assert "\u2028" not in re.search(r'id="data">(.*?)</script>', text, re.S)[1]
    assert HOSTILE[:80] in data_of(page)["levels"][1]["terms"][0]


def test_a_long_snippet_is_cut(tmp_path: Path, catalog: Path) -> None:
    place = Layout(catalog, 1).tables / "examples.parquet"
    first, *others = pq.read_table(place).to_pylist()
    pq.write_table(
        pa.Table.from_pylist([{**first, "snippet": "x" * 5_000_000}, *others], tables.EXAMPLES),
        place,
    )
    accept_files(catalog, place)
    page = write_catalog_page(catalog, tmp_path / "page.html")
    assert page.stat().st_size < 200_000
    assert "x" * 200 in [example[4] for example in data_of(page)["levels"][0]["examples"][0]]


def test_infinite_numbers_become_null(tmp_path: Path, catalog: Path) -> None:
    place = Layout(catalog, 1).distributions
    table = pq.read_table(place).to_pylist()
    pq.write_table(
        pa.Table.from_pylist(
            [{**row, "weight": float("nan")} for row in table], tables.DISTRIBUTIONS
        ),
        place,
    )
    accept_files(catalog, place)
    assert (
        data_of(write_catalog_page(catalog, tmp_path / "page.html"))["levels"][1]["natural"]
        == [None] * 4
    )


@pytest.mark.parametrize("damage", ["missing", "pickled", "shape", "outside"])
def test_a_damaged_tree_is_refused(tmp_path: Path, catalog: Path, damage: str) -> None:
    place = catalog / "tree" / "centroids.npz"
    place.unlink()
    if damage == "pickled":
        np.savez(place, **{"2": np.array([{"a": 1}], dtype=object)})
    if damage == "shape":
        np.savez(place, **{"2": np.zeros((3, 8)), "4": np.zeros((4, 8))})
        accept_files(catalog, place)
    if damage == "outside":
        np.savez(tmp_path / "elsewhere.npz", **{"2": np.zeros((2, 8)), "4": np.zeros((4, 8))})
        place.symlink_to(tmp_path / "elsewhere.npz")
    expected = {"shape": r"shape \(3, 8\)", "outside": r"centroids\.npz"}.get(
        damage, r"centroids\.npz"
    )
    with pytest.raises(UserError, match=expected):
        read_centroids(open_files(catalog), [2, 4])


def test_invalid_requests_are_refused(tmp_path: Path, catalog: Path) -> None:
    with pytest.raises(UserError, match="nothing"):
        write_catalog_page(tmp_path / "nothing", tmp_path / "page.html")
    with pytest.raises(UserError, match="version 7"):
        write_catalog_page(catalog, tmp_path / "page.html", 7)
    with pytest.raises(UserError, match=re.escape(str(tmp_path))):
        write_catalog_page(catalog, tmp_path)
    place = Layout(catalog, 1).tables / "examples.parquet"
    content = bytearray(place.read_bytes())
    content[4:200] = bytes(196)  # the footer is intact, so only reading rows fails
    place.write_bytes(content)
    with pytest.raises(UserError, match="clustermix verify"):
        write_catalog_page(catalog, tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()
