"""docs/sql.md: every example runs, in Python and in the shell, and every view, macro and column is there, and no other."""

import json
import re
from pathlib import Path

import duckdb
import pytest

import data_catalog
from data_catalog.runs import VIEWS
from tests.tiny_run import write_run

PAGE = (Path(__file__).parent.parent / "docs" / "sql.md").read_text(encoding="utf-8")
HERE = {"heldout_law": "space", "heldout_web": "natural", "(64, 1)": "(4, 1)", "level = 64": "level = 4", "level <= 64": "level <= 4"}
EMPTY = ("rules",)  # of the small catalog, which has no quality preset
UPDATE = {"kind": "update", "step": 10, "stage": 1, "scores": [0.5, 0.1], "errors": [0.1, 0.1], "losses": [2, 3], "effective": [4, 4]}


def sections():
    """(heading, text) of each view or macro."""
    return re.findall(r"^### ([^\n]*)\n(.*?)(?=^##|\Z)", PAGE, re.DOTALL | re.MULTILINE)


NAMES = {name: text for heading, text in sections() for name in re.findall(r"`(\w+)", heading)}
OF_RUNS = re.compile(rf"(FROM|JOIN) ({'|'.join(VIEWS)})\b")  # named when a catalog is opened: the shell has none
EXAMPLES = [
    (re.findall(r"`(\w+)", heading)[0], sql) for heading, text in sections() for sql in re.findall(r"```sql\n(.*?)```", text, re.DOTALL)
]
CALLS = {
    "domain_docs": "domain_docs(4, 1)",
    "nearest_domains": "nearest_domains('space')",
    "overlap": "overlap('space', 'natural')",
    **{name: f"{name}('RUNS/sample-dga')" for name in ("run_summary", "run_metrics", "run_weights", "run_scores")},
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    for mixer in ("dga", "natural"):
        run = write_run(folder / "runs" / f"sample-{mixer}", mixer=mixer, basis=("space", "natural"), level=4)
        with (run / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(UPDATE) + "\n")
    return folder


@pytest.fixture
def catalog(built, runs, monkeypatch):
    monkeypatch.chdir(runs)
    return data_catalog.open(built[0], runs=["runs/*"])


def here(sql):
    """The example as the small catalog can answer it."""
    for name, ours in HERE.items():
        sql = sql.replace(name, ours)
    return sql


def documented(text):
    rows = re.findall(r"^\| (`.*?) \|", text, re.MULTILINE)
    return [name for row in rows for name in re.findall(r"`(\w+)`", row)]


@pytest.mark.parametrize(("name", "sql"), [(name, sql) for name, sql in EXAMPLES if "run_" not in sql])
def test_every_example_runs_and_finds_something(catalog, name, sql):
    rows = catalog.sql(here(sql)).fetchall()
    assert rows or name in EMPTY


@pytest.mark.parametrize(("name", "sql"), [(name, sql) for name, sql in EXAMPLES if not OF_RUNS.search(sql)])
def test_every_example_runs_in_the_shell(built, runs, monkeypatch, name, sql):
    monkeypatch.chdir(built[0])
    with duckdb.connect("catalog.duckdb", read_only=True) as shell:
        assert shell.execute(here(sql).replace("'runs/", f"'{runs}/runs/")).fetchall() or name in EMPTY


@pytest.mark.parametrize("name", NAMES)
def test_every_column_is_documented_and_no_other(catalog, runs, name):
    columns = catalog.sql(f"FROM {CALLS.get(name, name)}".replace("RUNS", f"{runs}/runs")).columns
    assert sorted(documented(NAMES[name])) == sorted(columns)


def test_every_view_and_macro_is_documented_and_no_other(catalog):
    views = {name for (name,) in catalog.sql("SHOW TABLES").fetchall()}
    macros = {name for (name,) in catalog.sql("SELECT function_name FROM duckdb_functions() WHERE NOT internal").fetchall()}
    assert views | macros == set(NAMES)
    assert macros == set(CALLS)


def test_macros_are_documented_with_their_parameters(catalog):
    for name, parameters in catalog.sql("SELECT function_name, parameters FROM duckdb_functions() WHERE NOT internal").fetchall():
        [written] = re.findall(rf"^### .*`{name}\((.*?)\)`", PAGE, re.MULTILINE)
        assert [part.split(" :=")[0] for part in written.split(", ")] == parameters


def test_every_view_and_macro_has_an_example():
    for name, text in NAMES.items():
        examples = "".join(re.findall(r"```sql\n(.*?)```", text, re.DOTALL))
        assert re.search(rf"\b{name}\b", examples), name


def test_the_python_of_the_page_runs(built, monkeypatch):
    pytest.importorskip("pandas")
    [code] = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    exec(code.replace("catalogs/sample", str(built[0])), found := {})
    assert len(found["large"].df()) == 5
    assert {level for level, *_ in found["large"].filter("level = 4").fetchall()} <= {4}
