"""Imports do not load heavy packages, and no installed package ships our names."""

import subprocess
import sys
from importlib.metadata import packages_distributions

import pytest

from tests.helpers.repository import ROOT

PACKAGES = ("data_catalog", "pipeline", "trainer", "flows")


def loaded_by(statement: str) -> set[str]:
    code = f"{statement}\nimport sys\nprint(*sorted(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        (
            "import data_catalog",
            {"torch", "prefect", "pydantic_settings", "transformers", "duckdb"},
        ),
        ("import trainer.config", {"torch", "prefect", "pipeline"}),
        ("import trainer.loop", {"prefect", "pipeline", "faiss", "sklearn", "datasets", "duckdb"}),
        ("import pipeline.config", {"torch", "faiss", "prefect", "trainer"}),
    ],
)
def test_importing_does_not_load(statement, absent):
    assert not loaded_by(statement) & absent


def test_the_check_above_can_fail():
    assert "numpy" in loaded_by("import numpy")


def test_no_installed_package_ships_our_names():
    owners = {name: sorted(set(found)) for name, found in packages_distributions().items()}
    assert {name: owners.get(name, ["clustermix"]) for name in PACKAGES} == {
        name: ["clustermix"] for name in PACKAGES
    }
