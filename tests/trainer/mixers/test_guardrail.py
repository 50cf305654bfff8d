"""The limit on the loss on general text, by hand and in runs on the tiny catalog."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from data_catalog.errors import UserError
from tests.helpers.tiny_catalog import write_tiny_catalog
from tests.helpers.tiny_training import records, tiny_config
from trainer.config import Train
from trainer.loop import train
from trainer.mixers.guardrail import DUAL_STEP, Guardrail, read_guardrail

GUARDRAIL = Guardrail(np.array([0.0, 99.0, 9999.0]), np.array([5.0, 3.0, 2.0]), 0.1, 2.0)
PRIOR = {"prior": "target", "target_share": 0.9, "pull": 0.5, "scores": "target"}


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_catalog(tmp_path_factory.mktemp("catalog"))


def test_the_limit_is_interpolated_over_the_logarithm_of_tokens() -> None:
    limits = [GUARDRAIL.limit(tokens) for tokens in (0, 9, 99, 999, 9999, 10**6)]
    assert limits == pytest.approx([5.1, 4.1, 3.1, 2.6, 2.1, 2.1])


def test_the_weight_grows_above_the_limit_and_never_falls_below_zero() -> None:
    memory = GUARDRAIL.updated({"other": np.ones(1)}, loss=3.6, tokens=99)
    assert GUARDRAIL.weight(memory) == pytest.approx(1.0)
    assert memory["other"].tolist() == [1.0]
    memory = GUARDRAIL.updated(memory, loss=2.9, tokens=99)
    assert GUARDRAIL.weight(memory) == pytest.approx(0.6)
    assert GUARDRAIL.weight(GUARDRAIL.updated(memory, loss=0.0, tokens=99)) == 0.0
    assert GUARDRAIL.weight({}) == 0.0


def reference_run(catalog: Path, out: Path, every: int = 7) -> Path:
    assert train(
        tiny_config(catalog, out, mixture={"mixer": "natural"}, evaluation={"every_steps": every})
    )
    return out


def test_a_run_above_its_limit_moves_to_natural_and_resumes(catalog: Path, tmp_path: Path) -> None:
    natural = reference_run(catalog, tmp_path / "natural")
    # The reference's losses, lowered, so that the limit cannot be kept.
    lines = [json.loads(line) for line in (natural / "metrics.jsonl").read_text().splitlines()]
    for record in lines:
        if record["kind"] == "eval":
            record["loss"] -= 1.0
    (natural / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (natural / "checksums.json").unlink()
    limit = {**PRIOR, "general_loss_at_most": f"{natural} + 0"}
    free, limited, resumed = (tmp_path / name for name in ("free", "limited", "resumed"))
    assert train(tiny_config(catalog, free, mixture=PRIOR))
    assert train(tiny_config(catalog, limited, mixture=limit))
    weights = [update["general_weight"] for update in records(limited, "update")]
    assert weights == sorted(weights)
    assert weights[0] == pytest.approx(DUAL_STEP / 5 * (update_excess(limited)), rel=1e-6)
    place = json.loads((limited / "config.json").read_text())["basis"].index("natural")
    last = [records(run, "update")[-1]["sampling"][place] for run in (free, limited)]
    assert last[1] > last[0] + 0.2
    stop_after(catalog, resumed, limit)
    assert updates_of(resumed) == updates_of(limited)


def update_excess(run: Path) -> float:
    first = records(run, "update")[0]
    return first["general_loss"] - first["general_limit"]


def stop_after(catalog: Path, out: Path, mixture: dict[str, object]) -> None:
    """Train, as if the run had been killed after step 16."""
    config = tiny_config(catalog, out, mixture=mixture, checkpoint={"every_steps": 4, "keep": 9})
    assert train(config)
    shutil.rmtree(out / "model")
    for step in (20, 24, 28):
        shutil.rmtree(out / "checkpoints" / f"{step:010d}")
    assert train(config)


def updates_of(run: Path) -> list[dict[str, object]]:
    """Return the updates of a run, without their durations."""
    return [{**update, "seconds": None} for update in records(run, "update")]


def test_a_reference_without_evaluations_is_refused(catalog: Path, tmp_path: Path) -> None:
    natural = reference_run(catalog, tmp_path / "natural", every=0)
    with pytest.raises(UserError, match="has 1 evaluations on general text"):
        read_guardrail(f"{natural} + 0.1", 5)
    with pytest.raises(UserError, match="is not the folder of a run"):
        read_guardrail(f"{tmp_path / 'nothing'} + 0.1", 5)


@pytest.mark.parametrize(
    "mixture",
    [
        {"general_loss_at_most": "runs/natural"},
        {"general_loss_at_most": "runs/natural + a lot"},
        {"general_loss_at_most": "runs/natural + 0.1", "prior": "even"},
        {"general_loss_at_most": "runs/natural + 0.1", "mixer": "natural"},
    ],
)
def test_limits_that_mean_nothing_are_refused(mixture: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="general_loss_at_most"):
        Train.model_validate({"catalog": "c", "out": "o", "target": "t", "mixture": mixture})
