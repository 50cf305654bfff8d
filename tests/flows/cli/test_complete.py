"""Shell completion, requested as bash requests it."""

import json
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from flows.cli import complete
from tests.helpers.repository import ROOT

COMMAND = [sys.executable, "-m", "flows.cli.main"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two catalogs and a run, with only the files that completion reads."""
    root = tmp_path_factory.mktemp("here")
    for name in ("sample", "small"):
        (root / "catalogs" / name).mkdir(parents=True)
        (root / "catalogs" / name / "catalog.json").write_text(
            json.dumps({"targets": ["law", "web"], "granularities": [2, 4]})
        )
    (root / "runs" / "one").mkdir(parents=True)
    (root / "runs" / "one" / "config.json").write_text(
        json.dumps({"config": {"catalog": str(root / "catalogs" / "small")}})
    )
    (root / "configs").mkdir()
    return root


def after_tab(folder, words):
    """Return the completions that bash gets for the last word of a line."""
    asked = {
        "_CLUSTERMIX_COMPLETE": "complete_bash",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split(" ")) - 1),
    }
    root = str(ROOT)
    done = subprocess.run(
        COMMAND,
        env={**os.environ, **asked, "PYTHONPATH": root},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert not done.stderr
    return done.stdout.split()


@pytest.mark.system
def test_commands_are_completed(folder):
    assert after_tab(folder, "clustermix re") == ["rebuild", "replay", "report"]


@pytest.mark.system
def test_names_from_the_catalog_on_the_command_line_are_completed(folder):
    assert after_tab(folder, "clustermix domains catalogs/sm") == ["catalogs/small"]
    assert after_tab(folder, "clustermix domains catalogs/small --target ") == [
        "law",
        "web",
        "natural",
        "uniform",
    ]
    assert after_tab(folder, "clustermix eval runs/one --target w") == ["web"]


@pytest.mark.system
def test_settings_and_their_values_are_completed(folder):
    assert after_tab(folder, "clustermix train x.toml --set mixture.mixer=d") == [
        "mixture.mixer=dga",
        "mixture.mixer=doge",
        "mixture.mixer=doremi",
    ]


def test_runs_levels_and_presets_are_completed(folder, monkeypatch):
    monkeypatch.chdir(folder)
    assert complete.runs("") == ["runs/one"]
    assert complete.runs("runs/") == ["runs/one"]
    assert complete.catalogs("catalogs/") == ["catalogs/sample", "catalogs/small"]
    assert "gopher" in complete.presets()
    assert "cluster.beam=" in complete.build_settings("cluster.")
    assert "quality.preset=gopher" in complete.build_settings("quality.preset=g")

    assert complete.levels(SimpleNamespace(params={"catalog": "catalogs/small"})) == ["2", "4"]


def test_missing_folders_give_no_error(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    line = SimpleNamespace(params={"catalog": None, "run": "none"}, args=[])
    assert complete.levels(line) == complete.targets(line) == complete.catalogs("x") == []
    assert complete.distributions(line) == ["natural", "uniform"]


@pytest.mark.system
def test_the_completion_script_for_bash():
    asked = {**os.environ, "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    done = subprocess.run(
        [*COMMAND, "--show-completion", "bash"],
        env=asked,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "_CLUSTERMIX_COMPLETE=complete_bash" in done.stdout
    assert "complete -o default -F _clustermix_completion clustermix" in done.stdout
