"""The example notebook runs on a small catalog, and a notebook displays a catalog."""

import importlib.util
import os
import shutil
import subprocess
import sys

import pytest

import data_catalog
from tests.data_catalog.plot.test_hostile_text import HOSTILE
from tests.helpers.manifests import change_manifest, write_manifest
from tests.helpers.repository import ROOT
from tests.helpers.tiny_run import write_run

NOTEBOOK = ROOT / "examples" / "explore.py"


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("notebook") / "runs"
    write_run(folder / "dga", basis=("space", "natural"), target="space")
    write_run(folder / "natural", basis=("natural",), mixer="natural", target="space")
    return folder


@pytest.fixture(scope="module")
def catalog(built, runs):
    return data_catalog.open(built[0], runs=[runs / "*"])


def test_the_example_runs_as_a_notebook(built, runs, monkeypatch):
    pytest.importorskip("marimo", reason="marimo is not installed")
    pytest.importorskip("plotly", reason="plotly is not installed")
    monkeypatch.setenv("CLUSTERMIX_CATALOG", str(built[0]))
    monkeypatch.setenv("CLUSTERMIX_RUNS", f"{runs}/nothing:{runs}/*")
    spec = importlib.util.spec_from_file_location("explore", NOTEBOOK)
    explore = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(explore)
    outputs, found = explore.app.run()
    assert found["catalog"].root == built[0].resolve()
    assert found["runs"]["run"].tolist() == ["dga", "natural"]
    assert found["treemap"].data[0].ids[:4] == ("all", "2/0", "2/1", "4/0")
    assert (found["targets"], len(found["examples"]), len(found["largest"])) == (["space"], 10, 6)
    assert [len(figure.data) > 0 for figure in found["compared"]] == [
        True,
        True,
        False,
    ]  # these runs have no scores
    headings = (
        "Sizes of domains",
        "Map of domains",
        "Domains with this word",
        "Nearest domains of the target",
        "Dropped documents",
    )
    shown = "".join(output.text for output in outputs if hasattr(output, "text"))
    assert [heading for heading in headings if heading not in shown] == []


@pytest.mark.system
def test_the_example_runs_as_a_script_and_reports_errors(tmp_path):
    pytest.importorskip("marimo", reason="marimo is not installed")
    environment = {
        **os.environ,
        "CLUSTERMIX_CATALOG": str(tmp_path),
        "PYTHONPATH": str(NOTEBOOK.parent.parent),
    }
    done = subprocess.run(
        [sys.executable, str(NOTEBOOK)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert f"{tmp_path}: no catalog here" in done.stderr


def test_a_catalog_shows_its_levels_targets_and_views(catalog):
    shown = catalog._repr_html_()
    assert "<b>catalog</b>, version 1" in shown
    tokens = catalog.sql("SELECT sum(tokens)::BIGINT FROM documents").fetchall()[0][0]
    assert f">{tokens:,}</td>" in shown
    for name in ("space", "domains", "weights"):
        assert f"<code>{name}</code>" in shown
    assert repr(catalog) == f"Catalog({str(catalog.root)!r}, version 1, domains at 2, 4)"


def test_names_from_the_catalog_are_escaped(built, tmp_path):
    root = tmp_path / "<img src=x>"
    shutil.copytree(built[0], root, ignore=shutil.ignore_patterns("work"))
    change_manifest(root, warnings=[HOSTILE])
    shown = data_catalog.open(root)._repr_html_()
    assert "<b>&lt;img src=x&gt;</b>" in shown
    assert not any(text in shown for text in ("<a ", "<img", "$", "\u202e"))


def test_a_catalog_without_tables_of_domains_shows_what_it_has(tmp_path):
    catalog = data_catalog.open(write_manifest(tmp_path))
    assert catalog._repr_html_() == f"<div><b>{tmp_path.name}</b>, version 1</div>"
    assert list(catalog.views) == []


def test_views_are_attributes(catalog):
    assert {"domains", "documents", "runs"} <= set(dir(catalog.views)) == set(catalog.views)
    assert catalog.views.domains.columns == catalog.sql("FROM domains").columns
    assert (
        catalog.views.domains.filter("level = 2").fetchall()
        == catalog.sql("FROM domains WHERE level = 2").fetchall()
    )
    with pytest.raises(AttributeError, match=r"view 'domain': .* accounting, "):
        _ = catalog.views.domain
    assert not hasattr(catalog.views, "_ipython_canary_method_should_not_exist_")


def test_typed_values_are_parameters(catalog):
    query = "SELECT count(*) AS n FROM domains WHERE level = $level AND terms[1] <> $word"
    given = {"level": 2, "word": "'; SELECT 1 --"}
    assert catalog.sql(query, given).fetchall() == [(2,)]
    assert catalog.table(query, given).to_pylist() == [{"n": 2}]
    with pytest.raises(data_catalog.UserError, match="query: "):
        catalog.sql(query, {"level": 2})


def test_results_convert_to_data_frames(catalog):
    pandas = pytest.importorskip("pandas")
    answer = catalog.sql(
        "SELECT level, count(*) AS domains FROM domains GROUP BY level ORDER BY level"
    )
    pandas.testing.assert_frame_equal(
        answer.df(), pandas.DataFrame({"level": [2, 4], "domains": [2, 4]})
    )
    assert answer.to_arrow_table().to_pydict() == {"level": [2, 4], "domains": [2, 4]}
