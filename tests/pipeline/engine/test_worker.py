"""The check of a worker, and what a part returns. The workers of a cluster: tests/system."""

import logging
import os
import subprocess
import sys

import pytest

from data_catalog.errors import UserError
from data_catalog.format.accounts import Account
from pipeline.config import Embed
from pipeline.engine import worker
from pipeline.engine.worker import Expected, find_problem, installed_software
from pipeline.parts import Part
from tests.helpers.repository import ROOT


@pytest.fixture
def expected(tmp_path):
    file = tmp_path / "work" / "token"
    file.parent.mkdir()
    file.write_text("secret")
    return Expected(file, "secret", installed_software(), {"source.path": tmp_path})


def test_the_machine_of_the_command_has_no_problem(expected):
    assert find_problem(expected) is None
    assert {"Python", "clustermix", "numpy", "torch", "tokenizers"} <= expected.software.keys()


def test_a_folder_that_is_not_shared_is_named(expected):
    expected.token_file.write_text("of another folder")
    assert str(expected.token_file.parent) in find_problem(expected)
    expected.token_file.unlink()
    assert str(expected.token_file) in find_problem(expected)


def test_a_path_of_the_config_that_is_missing_is_named(expected, tmp_path):
    other = Expected(
        expected.token_file, "secret", expected.software, {"labels.path": tmp_path / "no"}
    )
    assert f"labels.path {tmp_path / 'no'}" in find_problem(other)


def test_other_versions_are_named(expected, tmp_path):
    """Another process has an older tokenizers and no scipy, as `importlib.metadata` sees it."""
    software = {**expected.software, "scipy": "0.0.1"}
    fake = tmp_path / "site" / "tokenizers-0.1.2.dist-info"
    fake.mkdir(parents=True)
    (fake / "METADATA").write_text("Metadata-Version: 2.1\nName: tokenizers\nVersion: 0.1.2\n")
    code = (
        "import pathlib, sys; from pipeline.engine.worker import Expected, find_problem;"
        f"print(find_problem(Expected(pathlib.Path(sys.argv[1]), 'secret', {software!r}, {{}})))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(expected.token_file)],
        env={**os.environ, "PYTHONPATH": f"{fake.parent}:{ROOT}"},
        capture_output=True,
        text=True,
        check=True,
    )
    here = expected.software["tokenizers"]
    assert f"tokenizers 0.1.2 there, {here} here" in done.stdout
    assert "scipy" in done.stdout
    assert "numpy" not in done.stdout


def test_another_encoder_is_named(tmp_path):
    problem = worker.find_encoder_problem(Embed(max_tokens=64), {"sha256": "0"})
    assert "embed.model all-MiniLM-L6-v2" in problem
    problem = worker.find_encoder_problem(Embed(model=str(tmp_path / "none")), {})
    assert str(tmp_path / "none") in problem


def test_a_part_returns_its_warnings(expected, tmp_path):
    def make(folder, rows):
        logging.getLogger("pipeline.test").warning("%s: %d rows", folder.name, rows)
        return Part(folder, "f", Account(), 0.0)

    first = worker.call_part(expected, make, "stage/a", tmp_path / "a", 3)
    second = worker.call_part(expected, make, "stage/b", tmp_path / "b", 4)
    assert (first.part.name, first.warnings) == ("a", ["a: 3 rows"])
    assert (second.part.name, second.warnings) == ("b", ["b: 4 rows"])


def test_a_process_that_differs_makes_no_part(expected, tmp_path):
    other = Expected(expected.token_file, "another", expected.software, {})
    with pytest.raises(UserError, match="stage/a"):
        worker.call_part(other, lambda: pytest.fail("called"), "stage/a")
