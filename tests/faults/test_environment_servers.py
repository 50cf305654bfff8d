"""Builds and trainings where Prefect's settings name a server that does not answer."""

import os
import subprocess
import time
from itertools import product

import pytest

from tests.flows.cli.test_main import COMMAND, toml
from tests.helpers.environments import FAULTS
from tests.helpers.repository import ROOT
from tests.helpers.tiny_catalog import write_tiny_catalog
from tests.helpers.tiny_corpus import write_corpus
from tests.helpers.tiny_training import write_config

pytestmark = FAULTS
URL = "http://127.0.0.1:9/api"
PLACES = {  # file in the current folder or in PREFECT_HOME, and its content
    ".env": f"PREFECT_API_URL={URL}\n",
    "prefect.toml": f'[api]\nurl = "{URL}"\n',
    "pyproject.toml": f'[tool.prefect.api]\nurl = "{URL}"\n',
    "profiles.toml": f'active = "mine"\n[profiles.mine]\nPREFECT_API_URL = "{URL}"\n',
    "variable": None,
}


@pytest.mark.parametrize(("place", "command"), [*product(PLACES, ["build", "train"])])
def test_it_is_named_within_seconds(tmp_path, place, command):
    here, home = tmp_path / "here", tmp_path / "prefect"
    for folder in (here, home):
        folder.mkdir()
    variables = {name: value for name, value in os.environ.items() if "PREFECT" not in name}
    variables |= {"PREFECT_HOME": str(home), "PYTHONPATH": str(ROOT)}
    if place == "variable":
        variables["PREFECT_API_URL"] = URL
    else:
        folder = home if place == "profiles.toml" else here
        (folder / place).write_text(PLACES[place])
    if command == "build":
        path = tmp_path / "build.toml"
        path.write_text(toml(write_corpus(tmp_path, documents=8)))
    else:
        path = write_config(tmp_path, write_tiny_catalog(tmp_path / "catalog"), tmp_path / "run")
    started = time.monotonic()
    done = subprocess.run(
        [*COMMAND, command, str(path)],
        cwd=here,
        env=variables,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert time.monotonic() - started <= 5
    assert done.returncode == 2, done.stderr
    [sentence] = done.stderr.splitlines()
    assert f"PREFECT_API_URL {URL}" in sentence
    assert "Start it, or unset PREFECT_API_URL" in sentence
    assert not (tmp_path / "run").exists()
    assert not (tmp_path / "catalog" / "work").exists()
