"""docs/sql.md describes exactly the views, macros and columns, each view with an example.

test_docs_run.py runs the examples.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import data_catalog
from data_catalog import Catalog
from tests.helpers.tiny_workspace import inside
from tests.system.test_docs_run import PAGES

PAGE = PAGES["sql"].read_text(encoding="utf-8")
SECTIONS = re.findall(r"^### ([^\n]*)\n(.*?)(?=^##|\Z)", PAGE, re.DOTALL | re.MULTILINE)
NAMES = {name: text for heading, text in SECTIONS for name in re.findall(r"`(\w+)", heading)}
CALLS = {
    "domain_docs": "domain_docs(64, 1)",
    "nearest_domains": "nearest_domains('heldout_law')",
    "overlap": "overlap('heldout_law', 'natural')",
    **{
        name: f"{name}('HERE/runs/sample-dga')"
        for name in ("run_summary", "run_metrics", "run_weights", "run_scores")
    },
}


@pytest.fixture
def catalog(sample_workspace: Path) -> Iterator[Catalog]:
    with inside(sample_workspace):
        yield data_catalog.open("catalogs/sample", runs=["runs/*"])


@pytest.mark.parametrize("name", NAMES)
def test_every_column_is_documented_and_no_other(
    catalog: Catalog, sample_workspace: Path, name: str
) -> None:
    columns = catalog.sql(
        f"FROM {CALLS.get(name, name)}".replace("HERE", str(sample_workspace))
    ).columns
    documented = [
        column
        for row in re.findall(r"^\| (`.*?) \|", NAMES[name], re.MULTILINE)
        for column in re.findall(r"`(\w+)`", row)
    ]
    assert sorted(documented) == sorted(columns)


def test_every_view_and_macro_is_documented_and_no_other(catalog: Catalog) -> None:
    views = {name for (name,) in catalog.sql("SHOW TABLES").fetchall()}
    macros = {
        name
        for (name,) in catalog.sql(
            "SELECT function_name FROM duckdb_functions() WHERE NOT internal"
        ).fetchall()
    }
    assert views | macros == set(NAMES)
    assert macros == set(CALLS)


def test_macros_are_documented_with_their_parameters(catalog: Catalog) -> None:
    for name, parameters in catalog.sql(
        "SELECT function_name, parameters FROM duckdb_functions() WHERE NOT internal"
    ).fetchall():
        [written] = re.findall(rf"^### .*`{name}\((.*?)\)`", PAGE, re.MULTILINE)
        assert [part.split(" :=")[0] for part in written.split(", ")] == parameters


@pytest.mark.parametrize("name", NAMES)
def test_every_view_and_macro_has_an_example(name: str) -> None:
    assert re.search(
        rf"\b{name}\b", "".join(re.findall(r"```sql\n(.*?)```", NAMES[name], re.DOTALL))
    )
