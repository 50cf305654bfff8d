"""All commands: their documentation, their help, and their JSON output."""

import json
import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from io import StringIO
from typing import Any

import pytest
from typer.main import get_command

from flows.cli.app import app
from flows.cli.main import main
from flows.cli.options import ASK, BUILD, LOOK, START, TRAIN
from tests.flows.cli.test_main import toml
from tests.helpers.repository import ROOT

PAGE = ROOT / "docs" / "commands.md"
SECTIONS = dict(
    re.findall(
        r"^## (.+?)\n(.*?)(?=^## |\Z)", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
    )
)


def leaves(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Yield commands and sub-commands with the words that a user types for them."""
    for name, inner in getattr(command, "commands", {}).items():
        yield from leaves(inner, (*path, name))
    if not hasattr(command, "commands"):
        yield " ".join(path), command


COMMANDS = dict(leaves(get_command(app)))


def test_the_list_of_commands():
    names = (
        "demo plan build add verify rebuild domains query quality train replay experiment eval "
        "report serve worker push init"
    )
    fetched = "fetch rpv2, fetch dataset, fetch catalog, export catalog, export documents"
    assert set(COMMANDS) == {*names.split(), *fetched.split(", ")}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_is_documented_with_an_example_and_its_library_call(name):
    section = SECTIONS[name]
    lines = re.findall(r"```sh\n(.*?)```", section, re.DOTALL)
    assert any(
        line.startswith(f"clustermix {name} ") or line == f"clustermix {name}"
        for text in lines
        for line in text.splitlines()
    )
    assert "```python\n" in section
    assert ("--json" in section) == any("--json" in option.opts for option in COMMANDS[name].params)


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_a_command_ends_with_valid_examples(name):
    command = COMMANDS[name]
    assert command.help
    assert all(option.help for option in command.params)
    head, *lines = command.epilog.splitlines()
    assert head in ("Example:", "Examples:")
    assert lines
    for line in lines:
        words = shlex.split(line)
        given = len(name.split()) + 1
        assert words[:given] == ["clustermix", *name.split()]
        command.make_context(name, words[given:])


def test_every_command_is_in_a_panel_of_the_help():
    panels = {inner.rich_help_panel for inner in get_command(app).commands.values()}
    assert panels == {START, BUILD, ASK, TRAIN, LOOK}


def run_json(*words):
    """Run a command with --json and return the parsed standard output and the exit code."""
    out = StringIO()
    with (  # noqa: PT012
        pytest.MonkeyPatch.context() as patch,
        redirect_stdout(out),
        pytest.raises(SystemExit) as end,
    ):
        patch.setattr(sys, "argv", ["clustermix", *map(str, words), "--json"])
        main()
    return json.loads(out.getvalue()), end.value.code


def test_standard_output_is_only_json(built, tmp_path):
    root, _ = built
    found, code = run_json("domains", root, "--target", "space")
    assert code == 0
    assert [row["level"] for row in found["domains"]] == [2] * len(found["domains"])
    assert run_json("domains", root, "--level", 4, "--domain", 3)[0]["parent"] == 1
    assert (
        run_json("query", root, "SELECT level, 'nan'::DOUBLE AS x FROM domains WHERE level = 2")[0]
        == [{"level": 2, "x": None}] * 2
    )
    assert run_json("quality")[0].keys() == {"presets"}
    assert run_json("quality", root, "--preset", "gopher")[0].keys() == {"rules", "kept", "sources"}
    page = tmp_path / "page.html"
    assert run_json("report", root, "--out", page)[0] == {
        "page": str(page),
        "bytes": page.stat().st_size,
        "about": "catalog",
    }


def test_repeating_a_finished_build_reports_the_same_catalog(built, tmp_path):
    root = shutil.copytree(built[0], tmp_path / "catalog")
    manifest = json.loads((root / "catalog.json").read_text())
    config = tmp_path / "build.toml"
    config.write_text(toml({**built[1], "out": str(root)}))
    found, code = run_json("build", config)
    assert (code, found["fingerprint"], found["catalog"]) == (0, manifest["fingerprint"], str(root))
    assert found["page"] == str(root / "report.html")


def test_faults_of_a_catalog_are_json_and_exit_code_1(built, tmp_path):
    root = tmp_path / "copy"
    shutil.copytree(built[0], root, ignore=shutil.ignore_patterns("work"))
    found, code = run_json("verify", root)
    assert (found["sound"], found["faults"], code) == (True, [], 0)
    (root / "catalog.duckdb").unlink(missing_ok=True)
    made, code = run_json("rebuild", root)
    assert code == 0
    assert (root / "catalog.duckdb").is_file()
    assert made["views"] > 10
    assert made["macros"] > 5
    file = next((root / "documents").rglob("*.parquet"))
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    found, code = run_json("verify", root)
    assert (found["sound"], code) == (False, 1)
    assert "checksum differs" in found["faults"][0]
