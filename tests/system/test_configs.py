"""All shipped configs are valid."""

import pytest

from data_catalog.settings import load
from flows.recipe import Recipe
from pipeline.config import Addition, Build
from tests.helpers.repository import ROOT
from trainer.config import Train

CONFIG_FILES = sorted(
    [*(ROOT / "configs").glob("*.toml"), *(ROOT / "flows" / "cli").glob("*.toml")]
)


@pytest.mark.parametrize("path", CONFIG_FILES, ids=lambda path: path.name)
def test_a_config_is_valid(path):
    kinds = {"add": Addition, "experiment": Recipe, "train": Train, "demo_train": Train}
    load(next((kinds[key] for key in kinds if path.name.startswith(key)), Build), path)


def test_there_are_configs():
    assert len(CONFIG_FILES) >= 8


def test_the_configs_for_text_match():
    build, train = (
        load(Build, ROOT / "configs" / "text.toml"),
        load(Train, ROOT / "configs" / "train_text.toml"),
    )
    assert train.catalog == build.out
    assert train.target in {target.name for target in build.all_targets()}
