"""The reference pages agree with the code: keys, columns, records, results and error messages."""

import ast
import importlib.util
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import pipeline.config
import pipeline.source.config
import trainer.config
import trainer.mixture_config
from data_catalog.format import tables
from data_catalog.settings import Settings
from tests.system.test_docs_run import PAGES, ROOT

FORMATS = PAGES["reference/formats"].read_text(encoding="utf-8")
FAQ = PAGES["faq"].read_text(encoding="utf-8")
SCHEMAS = {name: schema for name, schema in vars(tables).items() if isinstance(schema, pa.Schema)}
MODELS = [
    model
    for module in (
        pipeline.config,
        pipeline.source.config,
        trainer.config,
        trainer.mixture_config,
    )
    for model in vars(module).values()
    if isinstance(model, type)
    and issubclass(model, Settings)
    and model.__module__ == module.__name__
]


@pytest.fixture(scope="module")
def maker() -> Any:
    found = importlib.util.spec_from_file_location(
        "make_reference", ROOT / "docs" / "make_reference.py"
    )
    assert found
    assert found.loader
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", PAGES)
def test_generated_parts_are_up_to_date(maker: Any, name: str) -> None:
    text = PAGES[name].read_text(encoding="utf-8")
    assert maker.filled(text) == text, "run `make docs`"


def test_a_stale_part_is_made_anew_and_nothing_else_is_touched(maker: Any) -> None:
    page = PAGES["reference/config"].read_text(encoding="utf-8")
    stale = page.replace("| `cluster.beam` |", "| `cluster.bean` |")
    assert stale != page
    assert maker.filled(stale) == page
    assert maker.filled("| `cluster.bean` |") == "| `cluster.bean` |"


def test_every_key_of_every_config_has_a_meaning_and_is_on_the_page() -> None:
    assert [
        (model.__name__, key)
        for model in MODELS
        for key, field in model.model_fields.items()
        if not field.description
    ] == []
    page = PAGES["reference/config"].read_text(encoding="utf-8")
    keys = set(re.findall(r"^\| `(?:\w+\.)*(\w+)` \|", page, re.MULTILINE))
    assert {key for model in MODELS for key in model.model_fields} == keys


def test_meanings_reach_the_schema_that_forms_are_made_of() -> None:
    schema = pipeline.config.Build.model_json_schema()
    assert (
        schema["$defs"]["Cluster"]["properties"]["beam"]["description"]
        == "Maximum number of branches that an assignment follows down the tree."
    )


def test_bounds_of_a_key_are_on_the_page() -> None:
    page = PAGES["reference/config"].read_text(encoding="utf-8")
    assert "| `mixture.ema` | number, > 0, ≤ 1 | `0.3` |" in page
    assert '| `training.parallel` | one of `"ddp"`, `"fsdp2"`, `"hsdp"` | `"ddp"` |' in page
    assert "| `targets_below` | path or URL |  |" in page
    assert "| `catalog` | path or URL | **required** |" in page


@pytest.mark.parametrize("name", SCHEMAS)
def test_every_column_of_every_schema_has_a_meaning_and_is_on_the_page(name: str) -> None:
    table = tables.TABLES[name]
    assert table.description
    assert all(column.description for column in table.columns)
    assert table.schema == SCHEMAS[name]
    [section] = re.findall(
        rf"<!-- generated: columns {name} -->(.*?)<!-- end of columns {name} -->",
        FORMATS,
        re.DOTALL,
    )
    assert re.findall(r"^\| `(\w+)`", section, re.MULTILINE) == SCHEMAS[name].names


def test_every_key_of_a_manifest_and_of_a_runs_config_is_on_the_page(
    sample_workspace: Path,
) -> None:
    manifest = json.loads((sample_workspace / "catalogs" / "sample" / "catalog.json").read_text())
    assert set(manifest) <= set(_keys("### `catalog.json`"))
    assert set(
        json.loads((sample_workspace / "runs" / "sample-dga" / "config.json").read_text())
    ) == set(_keys("### `config.json`"))


def test_every_key_of_every_record_is_on_the_page(sample_workspace: Path) -> None:
    documented = set(_keys("### `metrics.jsonl`", column=2))
    lines = (sample_workspace / "runs" / "sample-dga" / "metrics.jsonl").read_text().splitlines()
    found = {key for line in lines for key in json.loads(line)}
    assert found - {"kind"} <= documented
    # of questions, of bounds, of DoReMi, and of weights that follow improvement
    others = {"accuracy", "moved", "excess_losses", "target_weights", "target_losses"}
    assert documented - found == others
    assert {json.loads(line)["kind"] for line in lines} == {"train", "eval", "update", "final"}


def test_every_file_of_a_catalog_and_of_a_run_is_on_the_page(sample_workspace: Path) -> None:
    named = " ".join(re.findall(r"`([^`]*)`", FORMATS))
    for folder in ("catalogs/sample", "runs/sample-dga"):
        for path in (sample_workspace / folder).iterdir():
            assert path.name in named or path.name.startswith("."), path.name
    for path in (sample_workspace / "catalogs" / "sample" / "versions" / "0001").iterdir():
        assert path.name in named


def test_the_columns_of_usage_are_on_the_page(sample_workspace: Path) -> None:
    schema = pq.read_schema(sample_workspace / "runs" / "sample-dga" / "usage.parquet")
    assert re.findall(
        r"^\| `(\w+)` \| `(\w+)`", FORMATS.partition("### `usage.parquet`")[2], re.MULTILINE
    ) == [(field.name, str(field.type)) for field in schema]


def _keys(heading: str, column: int = 1) -> list[str]:
    section = FORMATS.partition(f"\n{heading}\n")[2].partition("\n###")[0]
    rows = [line.split("|") for line in section.splitlines() if line.startswith("|")][2:]
    return [key for cells in rows for key in re.findall(r"`(\w+)`", cells[column])]


QUOTED_ERRORS = re.findall(r"^### (`+) ?(.*?) ?\1$", FAQ, re.MULTILINE)
PLACEHOLDER = re.compile(r"%(?:\(\w+\))?[-+ 0,]*\d*(?:\.\d+)?[sdrfg]")


def _texts_of_the_code() -> Iterator[str]:
    """Yield every text in the code, with `…` for the values of f-strings and %-formats."""
    for package in ("data_catalog", "pipeline", "trainer", "flows"):
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.JoinedStr):
                    yield "".join(
                        str(part.value) if isinstance(part, ast.Constant) else "…"
                        for part in node.values
                    )
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    yield PLACEHOLDER.sub("…", node.value)


@pytest.fixture(scope="module")
def texts() -> list[str]:
    return list(_texts_of_the_code())


@pytest.mark.parametrize("quoted", [text for _, text in QUOTED_ERRORS])
def test_every_error_quoted_in_the_faq_is_in_the_code(texts: list[str], quoted: str) -> None:
    """A `…` of a quoted error stands for any text, and the error may end at its last `…`."""
    assert re.search(r"\w+ \w+", quoted), "too short to identify a message"
    pattern = re.compile(re.escape(quoted).replace("…", ".+") + "$", re.DOTALL)
    assert any(pattern.match(text) for text in texts)


def test_the_faq_has_the_errors_and_the_exit_codes() -> None:
    assert len(QUOTED_ERRORS) >= 25
    assert re.findall(r"^\| (\d+) \|", FAQ, re.MULTILINE) == ["0", "1", "2", "129", "130", "143"]
