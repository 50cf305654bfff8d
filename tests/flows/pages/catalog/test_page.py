"""The catalog page: what its data say of a small catalog, and that text from a catalog stays text."""

import base64
import hashlib
import json
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import data_catalog
from data_catalog.errors import UserError
from data_catalog.format import tables
from data_catalog.format.centroids import project, read_centroids
from data_catalog.format.files import open_files
from data_catalog.format.layout import Layout
from data_catalog.format.manifest import NAME, describe_files
from flows.pages.catalog import domains, signals, write_catalog_page
from tests.helpers.manifests import ENCODER, change_manifest, write_manifest

HOSTILE = "</script><script>document.title='ran'</script><img src=x onerror=\"document.title='ran'\"> \u202egnp.exe\u2028{{data}}<!--"
TERMS = [["tensor", "layer"], ["socket"], ["plot", "axis"], []]
TOKENS = (1000, 2000, 3000, 4000)


def write_domains_catalog(
    root: Path,
    tokens: tuple[int, ...] = TOKENS,
    top: int = 2,
    text: str = "an example",
    target: str = "law",
) -> Path:
    """Levels (top, leaves): every table that the page reads, with `text` wherever a catalog holds text of others."""
    layout, leaves = Layout(root, 1), len(tokens)
    layout.tables.mkdir(parents=True)
    layout.tree.mkdir()
    rows = []
    for level in (top, leaves):
        span = leaves // level
        for d in range(level):
            mine = tokens[d * span : (d + 1) * span]
            domain = {
                "level": level,
                "domain": d,
                "parent": d // (leaves // top) if level == leaves else None,
            }
            size = {
                "documents": sum(mine) // 100,
                "tokens": sum(mine),
                "radius": 0.5,
                "mean_distance": 0.25 * (d + 1),
            }
            words = [*TERMS[d % len(TERMS)], *([] if text == "an example" else [text])]
            sites = [{"name": f"site{d}.org", "share": 0.75}, {"name": None, "share": 0.25}]
            lists = {
                "terms": words,
                "top_sources": sites,
                "languages": [{"name": "en", "share": 1.0}],
                "flags": ["tiny"] if d == 0 else [],
            }
            rows.append(
                {**domain, **size, **lists, "distance_quantiles": [0.1, 0.2, 0.3, 0.4, 0.5]}
            )
    examples = [
        {
            "level": row["level"],
            "domain": row["domain"],
            "kind": kind,
            "rank": rank,
            "doc_id": f"doc {row['domain']}/{rank}",
        }
        | {"distance": 0.5, "source": "site0.org", "snippet": f"{text} {kind} {rank}"}
        for row in rows
        for kind in ("nearest", "typical", "boundary")
        for rank in range(5)
    ]
    weights = [
        (name, name, level, d, w)
        for level in (top, leaves)
        for name, w in (("natural", 0.0), ("uniform", 0.5))
        for d in range(level)
    ]
    natural = {(row["level"], row["domain"]): row["tokens"] / sum(tokens) for row in rows}
    distributions = [
        (n, k, level, d, natural[level, d] if n == "natural" else 1 / level)
        for n, k, level, d, _ in weights
    ]
    distributions += [(target, "hard", level, 1, 1.0) for level in (top, leaves)]
    distributions += [
        (target, "distance", level, d, 1 / level) for level in (top, leaves) for d in range(level)
    ]
    books = [
        ("source", "read", None, 200, 9000),
        ("source", "kept", None, 200, 9000),
        ("quality", "read", None, 200, 9000),
    ]
    books += [
        ("quality", "kept", None, 100, 8000),
        ("quality", "dropped", "gopher.words", 80, 600),
        ("quality", "dropped", text, 20, 400),
    ]
    removed = [
        ("gopher.words", "site0.org", 20, 500, 0.4),
        (text, "site0.org", 5, 100, 0.1),
        ("gopher.words", text, 1, 1, 1.0),
    ]
    content = {
        layout.domains: (rows, tables.DOMAINS),
        layout.tables / "examples.parquet": (examples, tables.EXAMPLES),
        layout.tables / "health.parquet": (
            [{"level": top, "measure": "tiny", "value": 1.0}],
            tables.HEALTH,
        ),
        layout.distributions: (
            [dict(zip(tables.DISTRIBUTIONS.names, row, strict=True)) for row in distributions],
            tables.DISTRIBUTIONS,
        ),
        layout.accounting: (
            [dict(zip(tables.ACCOUNTING.names, (*row, 0), strict=True)) for row in books],
            tables.ACCOUNTING,
        ),
        layout.removed: (
            [dict(zip(tables.REMOVED.names, row, strict=True)) for row in removed],
            tables.REMOVED,
        ),
    }
    offsets = [
        {"leaf": i, "split": "train", "top": 0, "part": 0, "rows": 1, "tokens": n}
        for i, n in enumerate(tokens)
    ]
    content[layout.offsets] = (offsets, tables.OFFSETS)
    for path, (found, schema) in content.items():
        pq.write_table(
            pa.Table.from_pylist(
                [{name: row.get(name) for name in schema.names} for row in found], schema
            ),
            path,
        )
    vectors = np.random.default_rng(0).normal(size=(leaves, 8)).astype(np.float32)
    np.savez(
        layout.tree / "centroids.npz",
        **{str(top): vectors.reshape(top, -1, 8).mean(axis=1), str(leaves): vectors},
    )
    placed = describe_files(root, [*content, layout.tree / "centroids.npz"])
    return write_manifest(
        root,
        granularities=[top, leaves],
        targets=[target] if re.fullmatch(NAME, target) else [],  # others are refused
        documents=sum(tokens) // 100,
        tokens=sum(tokens),
        encoder={**ENCODER, "model": text},
        warnings=[text],
        stage_seconds={"source": 4.0, "quality": 1.0, "tree": 5.0},
        files={name: entry.model_dump() for name, entry in placed.items()},
    )


def data_of(page: Path) -> dict:
    return json.loads(
        re.search(
            r'<script type="application/json" id="data">(.*?)</script>', page.read_text(), re.S
        )[1]
    )


def words_of(page: Path) -> str:
    """What a reader sees of the HTML itself."""
    body = re.sub(r"<(script|style).*?</\1>", "", page.read_text(), flags=re.S)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", body))


@pytest.fixture
def catalog(tmp_path: Path) -> Path:
    return write_domains_catalog(tmp_path / "catalog")


# --- data


def test_every_column_of_a_level(tmp_path: Path, catalog: Path) -> None:
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


def test_what_rules_took_of_a_domains_sites(tmp_path: Path, catalog: Path) -> None:
    """The rules' shares of a site are added, and weighted with the site's share among the named ones."""
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


def test_a_large_level_keeps_its_largest_domains_and_fewer_examples(
    tmp_path: Path, catalog: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(domains, "MAXIMUM_LEVEL_DOMAINS", 3)
    monkeypatch.setattr(domains, "MAXIMUM_EXAMPLES", 12)
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


def test_the_map_has_the_principal_axes() -> None:
    """Points in a plane of three dimensions: their distances stay, all variance is there, and an empty cell has no place."""
    plane = np.array([[3.0, 0, 1], [-3, 0, 1], [0, 1, 1], [0, -1, 1], [0, 0, 0]])
    places, share = project({5: plane, 1: np.array([[0.0, 0, 1]])})
    assert places[5][:4] == pytest.approx(np.array([[3, 0], [-3, 0], [0, 1], [0, -1]]))
    assert np.isnan(places[5][4]).all()
    assert (places[1].tolist(), share) == ([[0, 0]], pytest.approx(1))


def test_the_map_of_one_centroid_or_none() -> None:
    places, share = project({1: np.array([[0.6, 0.8]])})
    assert (places[1].tolist(), share) == ([[0, 0]], 0)
    places, share = project({2: np.zeros((2, 4))})
    assert (np.isnan(places[2]).all(), share) == (True, 0)


def test_quality_signals_are_means_over_a_domains_documents(
    tmp_path: Path, built: tuple, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = data_of(write_catalog_page(built[0], tmp_path / "page.html"))
    place = data["signals"].index("unique words among words")
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


# --- words and tables


def test_the_tables_say_what_was_dropped_and_how_long_it_took(
    tmp_path: Path, catalog: Path
) -> None:
    words = words_of(write_catalog_page(catalog, tmp_path / "page.html"))
    assert "100 documents of 10k tokens in 2 → 4 domains; version 1, 1 target," in words
    assert "Of the 200 documents that were read, 100 (50.0%) were dropped" in words
    assert "gopher.words quality 80 40.00% 600 site0.org (20), an example (1)" in words
    assert "source 4.0 40.0% 200 50 2,250" in words
    assert "tree 5.0 50.0% – – –" in words
    assert "Domains with fewer than 5 documents 2 1 4 –" in words


def test_a_catalog_without_times_has_a_page(tmp_path: Path, catalog: Path) -> None:
    change_manifest(catalog, stage_seconds={})
    assert "does not say how long" in words_of(write_catalog_page(catalog, tmp_path / "page.html"))


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


# --- what must not happen


def test_the_policy_allows_exactly_what_is_inlined(tmp_path: Path, catalog: Path) -> None:
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


def test_hostile_text_cannot_leave_its_place(tmp_path: Path) -> None:
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


def test_a_huge_snippet_is_cut(tmp_path: Path, catalog: Path) -> None:
    place = Layout(catalog, 1).tables / "examples.parquet"
    first, *others = pq.read_table(place).to_pylist()
    pq.write_table(
        pa.Table.from_pylist([{**first, "snippet": "x" * 5_000_000}, *others], tables.EXAMPLES),
        place,
    )
    page = write_catalog_page(catalog, tmp_path / "page.html")
    assert page.stat().st_size < 200_000
    assert "x" * 200 in [example[4] for example in data_of(page)["levels"][0]["examples"][0]]


def test_numbers_that_are_not_finite_are_null(tmp_path: Path, catalog: Path) -> None:
    place = Layout(catalog, 1).distributions
    table = pq.read_table(place).to_pylist()
    pq.write_table(
        pa.Table.from_pylist(
            [{**row, "weight": float("nan")} for row in table], tables.DISTRIBUTIONS
        ),
        place,
    )
    assert (
        data_of(write_catalog_page(catalog, tmp_path / "page.html"))["levels"][1]["natural"]
        == [None] * 4
    )


@pytest.mark.parametrize("damage", ["missing", "pickled", "shape", "outside"])
def test_a_tree_that_cannot_be_used_is_refused(tmp_path: Path, catalog: Path, damage: str) -> None:
    place = catalog / "tree" / "centroids.npz"
    place.unlink()
    if damage == "pickled":
        np.savez(place, **{"2": np.array([{"a": 1}], dtype=object)})
    if damage == "shape":
        np.savez(place, **{"2": np.zeros((3, 8)), "4": np.zeros((4, 8))})
    if damage == "outside":
        np.savez(tmp_path / "elsewhere.npz", **{"2": np.zeros((2, 8)), "4": np.zeros((4, 8))})
        place.symlink_to(tmp_path / "elsewhere.npz")
    expected = {"shape": r"shape \(3, 8\)", "outside": "lies outside the catalog"}.get(
        damage, "no centroids can be read here"
    )
    with pytest.raises(UserError, match=expected):
        read_centroids(open_files(catalog), [2, 4])


def test_bad_requests_are_one_sentence(tmp_path: Path, catalog: Path) -> None:
    with pytest.raises(UserError, match="no catalog here"):
        write_catalog_page(tmp_path / "nothing", tmp_path / "page.html")
    with pytest.raises(UserError, match="version 7"):
        write_catalog_page(catalog, tmp_path / "page.html", 7)
    with pytest.raises(UserError, match="is a folder"):
        write_catalog_page(catalog, tmp_path)
    place = Layout(catalog, 1).tables / "examples.parquet"
    content = bytearray(place.read_bytes())
    content[4:200] = bytes(196)  # the footer stays: only reading the rows fails
    place.write_bytes(content)
    with pytest.raises(UserError, match="clustermix verify"):
        write_catalog_page(catalog, tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()
