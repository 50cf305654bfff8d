"""Weights of several targets that follow their improvement: by hand, and in runs."""

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.tiny_catalog import write_tiny_catalog
from tests.helpers.tiny_training import records, tiny_config, without_clock
from trainer.config import Train
from trainer.loop import train
from trainer.mixers.guardrail import Guardrail
from trainer.mixers.improvement import IMPROVEMENT_STEP, ImprovementWeights
from trainer.mixers.simplex import MixerMemory
from trainer.target_shares import TargetShares

EVEN = {"law": 0.5, "math": 0.5}
MIXTURE = {
    "prior": "target",
    "pull": 0.5,
    "ema": 1.0,
    "scores": "target",
    "targets": {"spe": 8.0, "other": 1.0, "general": 1.0},
}


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_catalog(tmp_path_factory.mktemp("catalog"))


def moving(catalog: Path, out: Path) -> Train:
    """Return the config of a run whose weights follow improvement."""
    mixture = {**MIXTURE, "target_weights": "improvement"}
    return tiny_config(catalog, out, mixture=mixture, checkpoint={"every_steps": 4, "keep": 9})


@pytest.fixture(scope="module")
def moved(catalog: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of such a run."""
    config = moving(catalog, tmp_path_factory.mktemp("runs") / "moved")
    assert train(config)
    return config.out


def after(weights: ImprovementWeights, *measured: list[float]) -> MixerMemory:
    """Return the memory after measurements of the targets' losses."""
    memory: MixerMemory = {"other": np.ones(1)}
    for losses in measured:
        memory = weights.updated(memory, dict(zip(weights.own, losses, strict=True)))
    return memory


def test_the_first_measurement_leaves_the_weights_as_they_are() -> None:
    rule = ImprovementWeights({"law": 0.25, "math": 0.75}, updates=3)
    assert rule.weights({}) == {"law": 0.25, "math": 0.75}
    memory = after(rule, [4.0, 2.0])
    assert rule.weights(memory) == {"law": 0.25, "math": 0.75}
    assert memory["other"].tolist() == [1.0]
    assert rule.record(memory)["target_losses"] == {"law": 4.0, "math": 2.0}


def test_an_update_by_hand() -> None:
    """Law falls from 4 to 3.6 nats, by 10 %, and math from 2 to 1.4 nats, by 30 %.

    The mean rate is 20 %, so that the gains are -0.5 S / U and -1.5 S / U. A quarter of the own
    weights is added, because U is 3.
    """
    rule = ImprovementWeights({"law": 0.25, "math": 0.75}, updates=3)
    law, math_ = 0.25 * math.exp(-0.5 * IMPROVEMENT_STEP / 3), 0.75 * math.exp(-0.5 * 3.0)
    expected = 0.75 * law / (law + math_) + 0.25 * 0.25
    weights = rule.weights(after(rule, [4.0, 2.0], [3.6, 1.4]))
    assert weights["law"] == pytest.approx(expected)
    assert weights["law"] > 0.4
    assert sum(weights.values()) == pytest.approx(1.0)


def test_the_rates_are_compared_and_neither_losses_nor_the_size_of_the_rates() -> None:
    rule = ImprovementWeights(EVEN, updates=5)
    large, small = ([4.0, 40.0], [3.0, 35.0]), ([4.0, 4.0], [4 - 1e-6, 4 - 0.5e-6])
    expected = rule.weights(after(rule, *large))
    assert rule.weights(after(rule, *small)) == pytest.approx(expected, rel=1e-6)
    assert expected["math"] > 0.55


def test_targets_that_improve_equally_or_not_at_all_keep_their_weights() -> None:
    rule = ImprovementWeights({"law": 0.25, "math": 0.75}, updates=5)
    for now in ([2.0, 1.0], [4.0, 2.0], [6.0, 3.0]):
        assert rule.weights(after(rule, [4.0, 2.0], now)) == pytest.approx(rule.own)


def test_a_target_whose_loss_grows_gains_weight() -> None:
    rule = ImprovementWeights(EVEN, updates=5)
    assert rule.weights(after(rule, [4.0, 4.0], [4.1, 3.9]))["law"] > 0.6


@pytest.mark.parametrize("updates", [4, 30, 300])
def test_a_run_moves_the_weights_equally_far_in_any_number_of_updates(updates: int) -> None:
    rule = ImprovementWeights(EVEN, updates)
    losses = [[4 * 0.99**i, 4 * 0.995**i] for i in range(updates + 1)]
    weights = rule.weights(after(rule, *losses))
    assert weights["math"] / weights["law"] == pytest.approx(3.1, abs=0.2)


@pytest.mark.parametrize("updates", [4, 30, 300])
def test_a_target_does_not_vanish(updates: int) -> None:
    """Law alone improves, in a run ten times as long as planned."""
    rule = ImprovementWeights(EVEN, updates)
    losses = [[4 * 0.99**i, 4.0] for i in range(10 * updates + 1)]
    assert rule.weights(after(rule, *losses))["law"] > 0.5 / 10


def test_the_limit_on_the_general_loss_adds_to_weights_that_follow_improvement() -> None:
    guardrail = Guardrail(np.zeros(1), np.array([3.0]), margin=0.0, step=2.0)
    rule = ImprovementWeights(EVEN, updates=5)
    shares = TargetShares({**EVEN, "general": 0.0}, guardrail, rule)
    assert shares.shares({}) == {**EVEN, "general": 0.0}
    memory = guardrail.updated(after(rule, [4.0, 4.0], [4.0, 3.0]), loss=3.5, tokens=0)
    law = rule.weights(memory)["law"]
    assert law > 0.6
    expected = {"law": law / 2, "math": (1 - law) / 2, "general": 0.5}
    assert shares.shares(memory) == pytest.approx(expected)


def test_a_slow_target_gains_weight_and_data(catalog: Path, moved: Path, tmp_path: Path) -> None:
    """Other has little weight, and improves more slowly until it has gained some."""
    weights = [update["target_weights"] for update in records(moved, "update")]
    assert [list(each) for each in weights] == [["spe", "other", "general"]] * 5
    assert [each["other"] > 0.1 for each in weights] == [True] * 5
    assert weights[2]["other"] > 0.15
    assert weights[2]["spe"] < 0.65
    fixed = tmp_path / "fixed"
    assert train(tiny_config(catalog, fixed, mixture=MIXTURE))
    assert "target_weights" not in records(fixed, "update")[0]
    place = json.loads((moved / "config.json").read_text())["basis"].index("other")
    drawn = [records(run, "update")[3]["sampling"][place] for run in (fixed, moved)]
    assert drawn[1] > drawn[0] + 0.03


def test_the_weights_of_a_run_follow_from_its_losses(moved: Path) -> None:
    updates = records(moved, "update")
    rule = ImprovementWeights({"spe": 0.8, "other": 0.1, "general": 0.1}, updates=5)
    first, losses = (updates[0][name] for name in ("target_weights", "target_losses"))
    assert first != pytest.approx(rule.own)  # compared with the losses before the first step
    memory: MixerMemory = {
        "target_weights": np.array(list(first.values())),
        "target_losses": np.array(list(losses.values())),
    }
    for update in updates[1:]:
        memory = rule.updated(memory, update["target_losses"])
        assert rule.weights(memory) == pytest.approx(update["target_weights"])


def test_a_run_resumes_with_its_weights(catalog: Path, moved: Path, tmp_path: Path) -> None:
    resumed = tmp_path / "resumed"
    shutil.copytree(moved, resumed)
    shutil.rmtree(resumed / "model")
    for step in (20, 24, 28):
        shutil.rmtree(resumed / "checkpoints" / f"{step:010d}")
    assert train(moving(catalog, resumed))
    first, second = (without_clock(records(run, "update")) for run in (moved, resumed))
    assert first == second


@pytest.mark.parametrize(
    "mixture",
    [
        {},
        {"targets": {"law": 1.0}},
        {"targets": {"law": 1.0, "math": 1.0}, "mixer": "doge"},
        {"targets": {"law": 1.0, "math": 1.0}, "mixer": "static", "target_share": 0.5},
    ],
)
def test_weights_of_too_few_targets_or_another_mixer_are_refused(
    mixture: dict[str, object],
) -> None:
    mixture = {**mixture, "target_weights": "improvement"}
    with pytest.raises(ValueError, match="target_weights"):
        Train.model_validate({"catalog": "c", "out": "o", "target": "t", "mixture": mixture})


def test_the_weights_are_part_of_the_fingerprint() -> None:
    def fingerprint_of(**mixture: object) -> str:
        mixture = {"targets": EVEN, **mixture}
        config = {"catalog": "c", "out": "o", "target": "t", "mixture": mixture}
        return Train.model_validate(config).fingerprint()

    assert fingerprint_of(target_weights="fixed") == fingerprint_of()
    assert fingerprint_of(target_weights="improvement") != fingerprint_of()
