"""Every recipe loads."""

import pytest

from data_catalog.settings import load
from pipeline.config import Addition, Build
from tests.helpers.repository import ROOT
from trainer.config import Train

RECIPES = sorted([*(ROOT / "configs").glob("*.toml"), *(ROOT / "flows").glob("*.toml")])


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.name)
def test_it_loads(recipe):
    kind = Train if "train" in recipe.name else Addition if recipe.name.startswith("add") else Build
    load(kind, recipe)


def test_there_are_recipes():
    assert len(RECIPES) >= 6


def test_the_recipes_for_text_fit_each_other():
    build, train = (
        load(Build, ROOT / "configs" / "text.toml"),
        load(Train, ROOT / "configs" / "train_text.toml"),
    )
    assert train.catalog == build.out
    assert train.target in {target.name for target in build.all_targets()}
