"""Every figure of the README is in a result file, and every result file can be made again."""

import re
import tomllib
from importlib.util import find_spec

import pytest

from benchmarks import experiments
from benchmarks.__main__ import NOT_BENCHMARKS, benchmark_names
from flows.experiment_results import load_results
from flows.recipe import open_recipe
from tests.helpers.repository import ROOT

RESULTS = sorted(path for path in (ROOT / "benchmarks" / "results").iterdir() if path.is_file())
STORED = sorted((ROOT / "benchmarks" / "results" / "runs").glob("*.jsonl"))
README = (ROOT / "README.md").read_text(encoding="utf-8")
HIGHLIGHTS = re.findall(r"^\* (.*?)(?=\n\*|\n\n)", README, re.MULTILINE | re.DOTALL)
FIGURE = re.compile(r"\*\*([^*]+)\*\*")


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_a_result_names_a_command_that_exists(path):
    [module] = set(re.findall(r"`python -m ([\w.]+)", path.read_text(encoding="utf-8")))
    assert module.startswith("benchmarks.")
    assert find_spec(module) is not None


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_a_result_names_its_date_and_hardware(path):
    text = path.read_text(encoding="utf-8")
    [line] = [line for line in text.splitlines() if "`python -m" in line][:1]
    assert line.startswith(path.name[:10])
    assert re.search(r"\d+ cores|GPU", line)


@pytest.mark.parametrize("runs", STORED, ids=lambda path: path.stem)
def test_the_tables_of_an_experiment_follow_from_its_stored_runs(runs):
    name = runs.stem[11:]
    written = (experiments.STORED / f"{runs.stem}.md").read_text(encoding="utf-8")
    recipe = open_recipe(experiments.recipe_of(name))
    transfer = experiments.stored_results(name.replace("frontier", "transfer"))
    made = experiments.body(name, load_results(runs), recipe, transfer)
    assert written.split("\n\n", 2)[2] == made


def test_every_experiment_of_the_results_has_stored_runs():
    shown = [path for path in RESULTS if "benchmarks.experiments" in path.read_text("utf-8")]
    assert shown
    assert {path.stem for path in shown} == {path.stem for path in STORED}


@pytest.mark.parametrize("highlight", [text for text in HIGHLIGHTS if FIGURE.search(text)])
def test_a_figure_of_the_readme_is_in_the_result_it_links_to(highlight):
    [link] = set(re.findall(r"\]\((benchmarks/results/[^)]+)\)", highlight))
    result = (ROOT / link).read_text(encoding="utf-8")
    for figure in FIGURE.findall(highlight):
        assert figure in result, figure


def test_the_readme_has_highlights():
    assert sum(bool(FIGURE.search(text)) for text in HIGHLIGHTS) >= 5


def test_every_benchmark_is_run_by_make_bench():
    assert "python -m benchmarks\n" in (ROOT / "Makefile").read_text(encoding="utf-8")
    for name in benchmark_names():
        source = (ROOT / "benchmarks" / f"{name}.py").read_text(encoding="utf-8")
        assert 'if __name__ == "__main__":' in source, name
    for name in NOT_BENCHMARKS:
        assert (ROOT / "benchmarks" / f"{name}.py").is_file(), name


def test_the_version_stands_in_one_place():
    from data_catalog import __version__

    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert "version" not in pyproject["project"]
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert re.search(r"^version: (.+)$", citation, re.MULTILINE)[1] == __version__
