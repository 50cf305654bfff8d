"""The command `init`: configs that work, with the user's paths, and nothing overwritten."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from data_catalog.settings import load
from pipeline.config import Build
from tests.flows.cli.test_main import clustermix, refused
from tests.helpers.repository import ROOT
from trainer.config import Train


@pytest.mark.parametrize("corpus", ["texts", "jsonl", "rpv2"])
def test_the_written_configs_fit_each_other(tmp_path, corpus):
    paths = ("--source", 'my "notes" é', "--target", "my notes/é")
    done = clustermix("init", corpus, "--out", tmp_path / "configs", *paths, "--json")
    assert done.returncode == 0, done.stderr
    written = json.loads(done.stdout)
    build, train = load(Build, Path(written["build"])), load(Train, Path(written["train"]))
    assert str(build.source.path) == 'my "notes" é'
    assert [str(target.path) for target in build.targets] == ["my notes/é"]
    assert (train.catalog, train.target) == (build.out, build.targets[0].name)


def test_an_existing_file_is_kept(tmp_path):
    (tmp_path / "train_text.toml").write_text("mine")
    refused(clustermix("init", "texts", "--out", tmp_path), "train_text.toml")
    assert [path.name for path in tmp_path.iterdir()] == ["train_text.toml"]
    assert (tmp_path / "train_text.toml").read_text() == "mine"


@pytest.mark.slow
def test_the_wheel_has_the_recipes(tmp_path):
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir"]
    subprocess.run([*build, str(tmp_path), str(ROOT)], check=True, env=os.environ.copy())
    [wheel] = tmp_path.glob("clustermix-*.whl")
    names = subprocess.run(
        [sys.executable, "-m", "zipfile", "-l", str(wheel)],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "flows/cli/configs/text.toml" in names
    assert "flows/local/build.py" in names
