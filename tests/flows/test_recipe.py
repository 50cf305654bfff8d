"""Recipes of experiments: their runs, their folders and what is refused."""

from pathlib import Path
from typing import Any

import pytest

from data_catalog.errors import UserError
from data_catalog.settings import parse
from flows.recipe import Recipe, epochs_alone, open_recipe, parse_variants, planned_runs
from tests.helpers.tiny_catalog import write_tiny_catalog
from tests.helpers.tiny_training import tiny_config, write_config


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_catalog(tmp_path_factory.mktemp("catalog"))


def recipe(catalog: Path, out: Path, **changed: Any) -> Recipe:
    shared = tiny_config(catalog, out).model_dump(mode="json", exclude={"out"}, exclude_unset=True)
    variants = {
        "natural": {"mixture": {"mixer": "natural"}},
        "dga": {"mixture": {"mixer": "dga", "eta": 2.0}},
        "averaged": {"follows": "dga", "mixture": {"replay_order": "averaged"}},
    }
    return parse(
        Recipe, {"out": str(out), "run": shared, "variants": variants, **changed}, "recipe"
    )


def test_every_variant_is_trained_with_every_seed(catalog: Path, tmp_path: Path) -> None:
    runs = planned_runs(recipe(catalog, tmp_path, seeds=[3, 1], targets=["spe"]))
    assert [(run.config.out.name, run.config.seed) for run in runs] == [
        (f"{variant}-spe-{seed}", seed)
        for seed in (3, 1)
        for variant in ("natural", "dga", "averaged")
    ]
    assert [run.config.mixture.eta for run in runs[:2]] == [None, 2.0]
    assert runs[0].config.training == runs[1].config.training


def test_a_folder_is_named_after_the_axes_of_the_recipe(catalog: Path, tmp_path: Path) -> None:
    runs = planned_runs(recipe(catalog, tmp_path))
    assert [run.config.out for run in runs] == [
        tmp_path / "runs" / name for name in ("natural", "dga", "averaged")
    ]


def test_a_variant_that_follows_replays_the_run_of_its_own_seed(
    catalog: Path, tmp_path: Path
) -> None:
    run = planned_runs(recipe(catalog, tmp_path, seeds=[0, 5]))[-1]
    assert run.follows == tmp_path / "runs" / "dga-5" == run.config.mixture.file
    assert (run.config.mixture.mixer, run.config.mixture.replay_order) == ("replay", "averaged")


def test_the_limit_of_a_variant_names_the_run_of_another(catalog: Path, tmp_path: Path) -> None:
    variants = {
        "natural": {"mixture": {"mixer": "natural"}},
        "limited": {"mixture": {"mixer": "dga", "general_loss_at_most": "natural + 0.05"}},
        "elsewhere": {"mixture": {"mixer": "dga", "general_loss_at_most": "other/run+1"}},
    }
    made = recipe(catalog, tmp_path, variants=variants, seeds=[4])
    made.run["mixture"]["prior"] = "target"
    natural, limited, elsewhere = planned_runs(made)
    assert limited.reference == natural.config.out
    assert limited.config.mixture.general_loss_at_most == f"{natural.config.out} + 0.05"
    assert elsewhere.reference is None
    assert elsewhere.config.mixture.general_loss_at_most == "other/run+1"


def test_a_repetition_thins_the_data(catalog: Path, tmp_path: Path) -> None:
    alone = epochs_alone(tiny_config(catalog, tmp_path))
    runs = planned_runs(recipe(catalog, tmp_path, epochs=[3 * alone]))
    tokens = 28 * 6 * 16
    assert runs[0].config.data.as_if_tokens == 3 * tokens
    assert epochs_alone(runs[0].config) == pytest.approx(3 * alone)
    too_little = planned_runs(recipe(catalog, tmp_path, epochs=[alone / 2]))
    assert {run.config.data.as_if_tokens for run in too_little} == {None}


def test_longer_variants_repeat_as_often(catalog: Path, tmp_path: Path) -> None:
    """A replay by a model that is trained for longer keeps its length, and the repetition."""
    from flows.experiment_runs import checked_runs

    variants = {
        "dga": {"mixture": {"mixer": "dga"}},
        "longer": {"follows": "dga", "training": {"steps": 56}},
    }
    alone = epochs_alone(tiny_config(catalog, tmp_path))
    made = recipe(catalog, tmp_path, variants=variants, epochs=[3 * alone], equal_compute=True)
    short, longer = checked_runs(made)
    assert short.config.training.steps < 28
    assert longer.config.training.steps == 56
    assert longer.config.data.as_if_tokens == pytest.approx(1.5 * 56 * 6 * 16, abs=1)


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"variants": {}}, "variants"),
        ({"variants": {"../up": {}}}, "../up"),
        ({"variants": {"a": {"follows": "b"}}}, "variants.a.follows: 'b' is not a variant"),
        ({"variants": {"a": {"follows": "a"}}}, "variants.a.follows"),
        ({"baseline": "nothing"}, "baseline: 'nothing'"),
        ({"predicted": {"nothing": 0.1}}, "predicted.nothing: 'nothing' is not a variant"),
        ({"variants": {"a": {"mixture": {"mixr": "dga"}}}}, "variant a: mixture.mixr"),
        ({"jobs": 0}, "jobs"),
        ({"sseds": [1]}, "sseds"),
    ],
)
def test_an_invalid_recipe_is_refused_by_name(
    catalog: Path, tmp_path: Path, changed: dict[str, Any], named: str
) -> None:
    with pytest.raises(UserError) as refused:
        planned_runs(recipe(catalog, tmp_path, **changed))
    assert named in str(refused.value)


def test_measuring_is_paid_with_steps(catalog: Path, tmp_path: Path) -> None:
    from flows.experiment_runs import checked_runs

    natural, dga, averaged = checked_runs(recipe(catalog, tmp_path, equal_compute=True))
    # Four members of 4 sequences and 8 of the target, every 5 steps of 6 sequences.
    assert natural.config.training.steps == 28
    assert dga.config.training.steps == round(28 / (1 + (3 * 16 + 3 * 8) / (3 * 6 * 5)))
    assert averaged.config.training.steps == dga.config.training.steps
    plain = checked_runs(recipe(catalog, tmp_path))
    assert {run.config.training.steps for run in plain} == {28}


def test_a_training_config_becomes_a_recipe(catalog: Path, tmp_path: Path) -> None:
    path = write_config(tmp_path, catalog, tmp_path / "out")
    made = open_recipe(path, ["natural", "low=optimizer.learning_rate=0.1"], {"seeds": [2]})
    natural, low = planned_runs(made)
    assert natural.config.out == tmp_path / "out" / "runs" / "natural-2"
    assert low.config.optimizer.learning_rate == 0.1
    assert natural.config.training == low.config.training
    with pytest.raises(UserError, match="--variant: found none"):
        open_recipe(path)


def test_words_become_variants() -> None:
    words = ["dga", "slow=mixture.mixer=dga", "slow=mixture.eta=0.1"]
    assert parse_variants(words) == {
        "dga": {"mixture": {"mixer": "dga"}},
        "slow": {"mixture": {"mixer": "dga", "eta": 0.1}},
    }
