"""Whole runs of every mixer, backend and phase, on the tiny catalog."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from data_catalog import UserError
from tests.helpers.tiny_catalog import write_tiny_catalog
from tests.helpers.tiny_questions import add_quiz
from tests.helpers.tiny_training import records, tiny_config, without_clock
from trainer.evaluation.objectives import TextLoss
from trainer.loop import train
from trainer.model.engine import Engine
from trainer.state import numeric_checks

pytestmark = pytest.mark.system  # whole trainings, or models exported to other runtimes

SHORT = {
    "training": {"steps": 12},
    "evaluation": {"every_steps": 0},
    "checkpoint": {"every_steps": 0},
}


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_catalog(tmp_path_factory.mktemp("catalog"))


def run(
    catalog: Path, out: Path, mixture: dict[str, Any], **sections: dict[str, Any]
) -> list[dict[str, Any]]:
    """Train, and return the rows of the weight log."""
    assert train(tiny_config(catalog, out, mixture=mixture, **{**SHORT, **sections}))
    return pq.read_table(out / "weights.parquet").to_pylist()


@pytest.mark.parametrize("backend", ["ghost", "finite_difference"])
@pytest.mark.parametrize("measure_on", ["probes", "batch"])
def test_cheap_backends_move_the_weights_to_the_target(
    catalog: Path, tmp_path: Path, backend: str, measure_on: str
) -> None:
    mixture = {
        "backend": backend,
        "measure_on": measure_on,
        "scores": "normalised",
        "eta": 1.0,
        "ema": 1.0,
    }
    sections = {**SHORT, "training": {"steps": 28}, "optimizer": {"schedule": "constant"}}
    rows = run(catalog, tmp_path / "run", mixture, **sections)
    assert rows[-1]["sampling"][1] == max(rows[-1]["sampling"])
    updates = records(tmp_path / "run", "update")
    assert [update["step"] for update in updates] == [5, 10, 15, 20, 25]
    assert all(error is not None and error > 0 for error in updates[0]["errors"][2:])
    assert bool(updates[0]["shares"]) == (backend == "ghost" and measure_on == "probes")


def killed(out: Path, after: int) -> None:
    """Remove what a run would not have written, had it been killed after its `after`-th step."""
    shutil.rmtree(out / "model")
    for checkpoint in (out / "checkpoints").iterdir():
        if int(checkpoint.name) > after:
            shutil.rmtree(checkpoint)


def resumed_alike(catalog: Path, folder: Path, afters: tuple[int, ...], **sections: Any) -> Path:
    """Train a run, kill it at several steps, and check that it ends each time as it did first."""
    config = tiny_config(catalog, folder / "run", **SHORT | sections)
    assert train(config)
    shutil.copytree(config.out, folder / "whole")
    for after in afters:
        killed(config.out, after)
        assert train(config)
        logs = [pq.read_table(folder / name / "weights.parquet") for name in ("run", "whole")]
        assert str(logs[0].to_pylist()) == str(logs[1].to_pylist())  # unknown scores are NaN
        for kind in ("train", "update"):
            first, second = (without_clock(records(folder / n, kind)) for n in ("run", "whole"))
            assert str(first) == str(second)
    return config.out


def test_a_run_with_muon_and_skipped_steps_resumes(
    catalog: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(numeric_checks, "LEAST_RECENT_STEPS", 4)
    optimizer = {"kind": "muon", "skip_outliers": 1.0}
    mixture = {"backend": "ghost", "scores": "target", "preconditioned": True}
    sections = {"training": {"steps": 12}, "checkpoint": {"every_steps": 1, "keep": 99}}
    out = resumed_alike(catalog, tmp_path, (3, 9), mixture=mixture, optimizer=optimizer, **sections)
    skipped = {record["step"] for record in records(out, "skipped")}
    assert skipped
    assert len(skipped) < 8
    for step in range(1, 13):
        files = [out / f"checkpoints/{n:010d}/model.safetensors" for n in (step - 1, step)]
        if all(file.is_file() for file in files):
            before, after = (load_file(file) for file in files)
            same = all(torch.equal(tensor, after[name]) for name, tensor in before.items())
            assert same == (step - 1 in skipped)


@pytest.mark.parametrize(
    ("backend", "scores"), [("ghost", "target"), ("finite_difference", "normalised")]
)
def test_a_run_resumes_between_the_steps_that_are_measured(
    catalog: Path, tmp_path: Path, backend: str, scores: str
) -> None:
    """A checkpoint inside or at the end of the measured steps holds the scores so far."""
    mixture = {"backend": backend, "measure_on": "batch", "scores": scores, "measure_steps": 3}
    sections = {"training": {"steps": 12}, "checkpoint": {"every_steps": 1, "keep": 99}}
    out = resumed_alike(catalog, tmp_path, (8, 9), mixture=mixture, **sections)
    updates = records(out, "update")
    assert [update["step"] for update in updates] == [5, 10]
    for update in updates:  # three batches of six
        assert 6 < max(update["effective"]) <= 18


def test_every_measured_step_has_documents_of_the_target_of_its_own(
    catalog: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers, backward = [], TextLoss.backward

    def recorded(objective: TextLoss, engine: Engine, number: int) -> torch.Tensor:
        numbers.append(number)
        return backward(objective, engine, number)

    monkeypatch.setattr(TextLoss, "backward", recorded)
    mixture = {"backend": "ghost", "measure_on": "batch", "scores": "target", "measure_steps": 3}
    run(catalog, tmp_path / "run", mixture)
    assert numbers == [3, 4, 5, 6, 7, 8]


def test_the_pending_measurement_survives_a_checkpoint(catalog: Path, tmp_path: Path) -> None:
    """A checkpoint at the end of an interval holds the measurement of its last step."""
    mixture = {"backend": "ghost", "measure_on": "batch", "scores": "normalised"}
    sections = {"training": {"steps": 15}, "checkpoint": {"every_steps": 5, "keep": 9}}
    resumed_alike(catalog, tmp_path, (10,), mixture=mixture, **sections)


@pytest.mark.parametrize("backend", ["exact", "ghost"])
def test_probes_of_the_next_draws_within_bounds(
    catalog: Path, tmp_path: Path, backend: str
) -> None:
    """Domains are used up one by one, and a resumed run knows what was drawn before."""
    mixture = {"probes": "next", "basis": "domains", "scores": "target", "backend": backend}
    mixture["measure_on"] = "probes"
    sections = {"data": {"max_epochs": 1.0}, "training": {"steps": 35}}
    sections |= {"checkpoint": {"every_steps": 5, "keep": 9}}
    out = resumed_alike(catalog, tmp_path, (20,), mixture=mixture, **sections)
    rows = pq.read_table(out / "weights.parquet").to_pylist()
    missing = [np.isnan(row["scores"]).sum() for row in rows[1:]]
    assert missing[0] == 0 < missing[-1] < 7  # of seven domains that have sequences


@pytest.mark.parametrize("mixer", ["odm", "ado"])
def test_mixers_that_use_losses(catalog: Path, tmp_path: Path, mixer: str) -> None:
    mixture = {"mixer": mixer, "basis": "domains", "update_every_steps": 1}
    rows = run(catalog, tmp_path / "run", mixture, training={"steps": 28})
    assert rows[-1]["sampling"] != rows[0]["sampling"]
    assert rows[-1]["scores"] is None
    assert all(loss > 0 for loss in records(tmp_path / "run", "update")[0]["losses"])


def test_weights_of_doge_and_doremi_can_be_used_by_a_second_run(
    catalog: Path, tmp_path: Path
) -> None:
    run(catalog, tmp_path / "natural", {"mixer": "natural"})
    proxies = {
        "target": {"mixer": "doge"},
        "members": {"mixer": "doge", "toward": "members"},
        "reference": {"mixer": "doremi", "reference": str(tmp_path / "natural" / "model")},
    }
    for name, mixture in proxies.items():
        run(catalog, tmp_path / name, mixture)
        weights = json.loads((tmp_path / name / "weights.json").read_text())
        assert set(weights) == {"other", "spe", "natural", "uniform"}
        assert sum(weights.values()) == pytest.approx(1)
        rows = run(
            catalog,
            tmp_path / f"{name}-second",
            {"mixer": "static", "file": str(tmp_path / name / "weights.json")},
        )
        assert [row["sampling"] for row in rows] == [[1.0]] * 3
    assert (
        records(tmp_path / "target", "update")[0]["target_loss"]
        != records(tmp_path / "members", "update")[0]["target_loss"]
    )


def test_a_replayed_log_draws_the_same_sequences(catalog: Path, tmp_path: Path) -> None:
    rows = run(catalog, tmp_path / "first", {"eta": 5.0, "ema": 1.0})
    again = run(
        catalog,
        tmp_path / "second",
        {"mixer": "replay", "file": str(tmp_path / "first")},
        model={"hidden_size": 16},
    )
    assert [row["sampling"] for row in again] == [row["sampling"] for row in rows]
    batches = [
        [r["batch"] for r in records(tmp_path / name, "train")] for name in ("first", "second")
    ]
    assert batches[0] == batches[1]


def test_temperature_and_start(catalog: Path, tmp_path: Path) -> None:
    assert run(catalog, tmp_path / "t", {"mixer": "temperature", "temperature": 3.0})[0][
        "sampling"
    ] == [1.0]
    assert run(catalog, tmp_path / "s", {"start": "spe"})[0]["sampling"] == [
        0.125,
        0.625,
        0.125,
        0.125,
    ]
    with pytest.raises(UserError, match=r"mixture\.start art: "):
        run(catalog, tmp_path / "x", {"start": "art"})


def test_bounds_hold(catalog: Path, tmp_path: Path) -> None:
    """Importance sampling uses one leaf of 45 sequences, at most twice.

    The run needs more and is refused.
    """
    with pytest.raises(UserError, match=r"data\.max_epochs"):
        run(
            catalog,
            tmp_path / "no",
            {"mixer": "importance"},
            data={"max_epochs": 1.0},
            training={"steps": 28},
        )
    run(
        catalog,
        tmp_path / "run",
        {"eta": 5.0, "ema": 1.0, "scores": "cosine"},
        data={"max_epochs": 1.0},
        training={"steps": 28},
    )
    usage = pq.read_table(tmp_path / "run" / "usage.parquet").to_pydict()
    assert max(usage["epochs"]) <= 1
    assert sum(usage["drawn_sequences"]) == 28 * 6
    assert records(tmp_path / "run", "bounds")[-1]["moved"] > 0


def test_scarce_domains(catalog: Path, tmp_path: Path) -> None:
    run(catalog, tmp_path / "run", {"mixer": "uniform"}, data={"tokens_per_domain": 160})
    usage = pq.read_table(tmp_path / "run" / "usage.parquet").to_pydict()
    assert usage["sequences"] == [10, 10, 10, 10, 10, 10, 2]


def test_an_overhead_budget_makes_updates_rarer(catalog: Path, tmp_path: Path) -> None:
    run(catalog, tmp_path / "run", {"overhead_budget": 0.5})
    cadence = json.loads((tmp_path / "run" / "config.json").read_text())["cadence"]
    assert cadence["update_every_steps"] == 8
    assert [record["step"] for record in records(tmp_path / "run", "update")] == [8]


def test_fine_tuning_is_a_second_phase(catalog: Path, tmp_path: Path) -> None:
    tuned = {
        "finetune": {"steps": 8, "batch_sequences": 4, "learning_rate": 0.01},
        "checkpoint": {"every_steps": 5, "keep": 9},
    }
    whole = tiny_config(catalog, tmp_path / "whole", **{**SHORT, **tuned})
    assert train(whole)
    before, after = (
        next(
            r["loss"]
            for r in records(whole.out, "eval")
            if r["set"] == "target/test" and r["step"] == step
        )
        for step in (12, 20)
    )
    assert after < before
    old, new = (
        AutoModelForCausalLM.from_pretrained(whole.out / name) for name in ("pretrained", "model")
    )
    assert not old.model.norm.weight.equal(new.model.norm.weight)
    steps = records(whole.out, "train")
    assert [record["step"] for record in steps] == list(range(1, 21))
    assert steps[12]["lr"] == pytest.approx(0.001)  # a warm-up of its own


def test_the_choice_of_answers_is_measured_with_any_objective(tmp_path: Path) -> None:
    catalog = add_quiz(write_tiny_catalog(tmp_path / "catalog"))
    found = []
    for name, objective in (("text", "text"), ("choices", "choices")):
        config = tiny_config(
            catalog,
            tmp_path / name,
            target="quiz",
            mixture={"mixer": "natural", "objective": objective},
            training={"steps": 3, "sequence_tokens": 160},
            evaluation={"every_steps": 0, "choices": True},
            checkpoint={"every_steps": 0},
        )
        assert train(config)
        sets = records(config.out, "eval")
        found.append([r for r in sets if r["set"] == "target/validation/choices"])
    assert found[0] == found[1]
    assert [r["sequences"] for r in found[0]] == [7]
