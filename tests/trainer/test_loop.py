"""Whole runs in one process, on the tiny catalog."""

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from data_catalog import UserError
from data_catalog.format.files import open_files
from data_catalog.format.lock import sole_holder
from data_catalog.format.tables import WEIGHTS
from data_catalog.format.tokens import open_tokens
from tests.helpers.tiny_catalog import ENCODER, write_tiny_catalog
from tests.helpers.tiny_training import records, tiny_config, without_clock, write_config
from trainer.__main__ import main
from trainer.begin import begin_run
from trainer.config import Train
from trainer.distributed import Team
from trainer.inputs import open_inputs
from trainer.loop import train

pytestmark = pytest.mark.system  # whole trainings, or models exported to other runtimes


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_catalog(tmp_path_factory.mktemp("catalog"))


@pytest.fixture(scope="module")
def config(catalog: Path, tmp_path_factory: pytest.TempPathFactory) -> Train:
    """Return the config of a finished run of 28 steps, with 5 per interval."""
    config = tiny_config(catalog, tmp_path_factory.mktemp("runs") / "run")
    assert train(config)
    return config


def test_a_run_writes_all_of_its_files(config: Train) -> None:
    names = {path.name for path in config.out.iterdir()}
    assert names - {".lock"} == {
        "config.json",
        "weights.parquet",
        "metrics.jsonl",
        "usage.parquet",
        "weights.json",
        "checksums.json",
        "checkpoints",
        "model",
    }
    about = json.loads((config.out / "config.json").read_text())
    assert (about["basis"], about["level"], about["sequences"], about["world"]) == (
        ["other", "spe", "natural", "uniform"],
        8,
        215,
        1,
    )
    assert about["config"]["mixture"]["basis_sequences"] == 4


def test_the_weight_log_has_a_row_per_interval_and_moves_to_the_target(config: Train) -> None:
    table = pq.read_table(config.out / "weights.parquet")
    assert table.schema.equals(WEIGHTS)
    rows = table.to_pylist()
    assert [row["first_sequence"] for row in rows] == [0, 30, 60, 90, 120, 150]
    assert rows[0]["scores"] is None
    assert rows[0]["sampling"] == [0.25] * 4
    assert rows[-1]["sampling"][1] == max(rows[-1]["sampling"]) > 0.25  # the target's own histogram
    updates = records(config.out, "update")
    assert [update["step"] for update in updates] == [5, 10, 15, 20, 25]
    assert [update["sampling"] for update in updates] == [row["sampling"] for row in rows[1:]]


def test_losses_fall_and_evaluations_are_on_schedule(config: Train) -> None:
    evals = [(record["step"], record["set"]) for record in records(config.out, "eval")]
    during = ["target/validation", "general"]
    assert evals == [(0, s) for s in during] + [(14, s) for s in during] + [
        (28, s) for s in (*during, "target/test", "other/test", "domain/0")
    ]
    losses = [
        record["loss"]
        for record in records(config.out, "eval")
        if record["set"] == "target/validation"
    ]
    assert losses[0] == pytest.approx(
        np.log(64), abs=0.2
    )  # nothing learned: uniform over the vocabulary
    assert losses[-1] < losses[0] - 1.5
    steps = records(config.out, "train")
    assert [record["step"] for record in steps] == list(range(1, 29))
    assert steps[0]["lr"] == pytest.approx(0.01 / 3)
    final = records(config.out, "final")[0]
    assert (final["steps"], final["tokens"]) == (28, steps[-1]["tokens"])


def test_usage_sums_to_the_number_of_draws(config: Train) -> None:
    usage = pq.read_table(config.out / "usage.parquet").to_pydict()
    assert usage["leaf"] == [0, 1, 2, 3, 4, 5, 7]
    assert usage["sequences"] == [60, 36, 45, 24, 18, 30, 2]
    assert sum(usage["drawn_sequences"]) == 28 * 6
    distinct = sum(
        min(d, s) for d, s in zip(usage["drawn_sequences"], usage["sequences"], strict=True)
    )
    assert records(config.out, "final")[0]["repeats"] == pytest.approx(28 * 6 / distinct)


def test_the_exported_model_loads_and_has_the_recorded_loss(config: Train, catalog: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(config.out / "model")
    tokenizer = AutoTokenizer.from_pretrained(config.out / "model")
    assert tokenizer("w3 w4")["input_ids"] == [3, 4]
    store = open_tokens(open_files(catalog), "heldout")
    leaves = np.array([leaf for leaf, n in enumerate(store.sequences(16)) for _ in range(n)])
    rows = np.array([row for n in store.sequences(16) for row in range(n)])
    inputs, labels = store.read(leaves, rows, 16)
    with torch.no_grad():
        logits = model(torch.from_numpy(inputs)).logits
    loss = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), torch.from_numpy(labels).flatten(), ignore_index=-100
    ).item()
    recorded = next(
        r["loss"] for r in records(config.out, "eval") if r["set"] == "general" and r["step"] == 28
    )
    assert abs(loss - recorded) < 0.5  # the record is of 8 of these sequences


def test_a_finished_run_is_not_changed(config: Train) -> None:
    before = (config.out / "metrics.jsonl").read_bytes()
    assert train(config)
    assert (config.out / "metrics.jsonl").read_bytes() == before


def test_another_config_in_the_same_folder_is_refused(config: Train, catalog: Path) -> None:
    with pytest.raises(UserError, match="--accept config"):
        train(tiny_config(catalog, config.out, mixture={"eta": 0.5}))


def test_two_processes_do_not_train_in_one_folder(catalog: Path, tmp_path: Path) -> None:
    with (
        sole_holder(tmp_path / "run", ""),
        pytest.raises(UserError, match="nother process"),
    ):
        train(tiny_config(catalog, tmp_path / "run"))


def test_a_change_is_declared_on_the_command_line(
    config: Train, catalog: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "config.toml"
    path.write_text(write_config(tmp_path, catalog, config.out).read_text())
    changed = [str(path), "--set", "optimizer.learning_rate=0.02"]
    assert main(changed) == 2
    assert "optimizer.learning_rate was 0.01 and is now 0.02" in capsys.readouterr().err
    assert main([*changed, "--accept", "config"]) == 0


@pytest.mark.parametrize("mixer", ["natural", "uniform", "importance"])
def test_static_mixers_keep_their_weights(catalog: Path, tmp_path: Path, mixer: str) -> None:
    sections = {
        "training": {"steps": 7},
        "checkpoint": {"every_steps": 0},
        "evaluation": {"targets": ["spe"]},
    }
    config = tiny_config(catalog, tmp_path / "run", mixture={"mixer": mixer}, **sections)
    assert train(config)
    losses = {record["set"]: record["loss"] for record in records(config.out, "eval")}
    assert (
        losses["spe/test"] == losses["target/test"]
    )  # the run's own target, measured a second time as a further one
    rows = pq.read_table(config.out / "weights.parquet").to_pylist()
    assert [(row["sampling"], row["scores"]) for row in rows] == [([1.0], None)] * 2
    usage = pq.read_table(config.out / "usage.parquet").to_pydict()
    drawn = dict(zip(usage["leaf"], usage["drawn_sequences"], strict=True))
    if mixer == "importance":
        assert drawn == {0: 0, 1: 0, 2: 42, 3: 0, 4: 0, 5: 0, 7: 0}
    else:
        assert sum(count > 0 for count in drawn.values()) >= 5


def test_a_basis_of_domains_starts_uniform_and_prefers_the_targets_domain(
    catalog: Path, tmp_path: Path
) -> None:
    mixture = {"basis": "domains", "ema": 1.0, "scores": "cosine"}
    config = tiny_config(catalog, tmp_path / "run", mixture=mixture)
    train(config)
    last = pq.read_table(config.out / "weights.parquet").to_pylist()[-1]
    assert len(last["sampling"]) == 7
    assert last["sampling"] == last["alpha"]
    assert int(np.argmax(last["sampling"])) == 2


def test_no_update_before_the_warmup(catalog: Path, tmp_path: Path) -> None:
    config = tiny_config(
        catalog, tmp_path / "run", mixture={"warmup_steps": 12}, training={"steps": 20}
    )
    train(config)
    assert [update["step"] for update in records(config.out, "update")] == [15]


def test_micro_batches_do_not_change_the_run(config: Train, catalog: Path, tmp_path: Path) -> None:
    other = tiny_config(
        catalog,
        tmp_path / "run",
        training={"micro_batch_sequences": 6, "steps": 6},
        optimizer={"schedule": "constant"},
    )
    same = tiny_config(
        catalog,
        tmp_path / "same",
        training={"micro_batch_sequences": 1, "steps": 6},
        optimizer={"schedule": "constant"},
    )
    train(other)
    train(same)
    np.testing.assert_allclose(
        *([r["loss"] for r in records(c.out, "train")] for c in (other, same)), rtol=1e-5
    )


def test_training_continues_from_a_saved_model(
    config: Train, catalog: Path, tmp_path: Path
) -> None:
    tree = {
        **tiny_config(catalog, tmp_path / "tuned", training={"steps": 6}).model_dump(),
        "model": {"path": str(config.out / "model")},
    }
    tuned = Train.model_validate(tree)
    train(tuned)
    first = records(tuned.out, "eval")[0]["loss"]
    last = next(
        r["loss"]
        for r in records(config.out, "eval")
        if r["set"] == "target/validation" and r["step"] == 28
    )
    assert first == pytest.approx(last, rel=1e-6)


def test_bfloat16_trains(catalog: Path, tmp_path: Path) -> None:
    config = tiny_config(catalog, tmp_path / "run", training={"precision": "bfloat16", "steps": 12})
    train(config)
    losses = [record["loss"] for record in records(config.out, "train")]
    assert losses[-1] < losses[0] - 0.5


def test_numbers_that_are_not_finite_stop_the_run(catalog: Path, tmp_path: Path) -> None:
    config = tiny_config(catalog, tmp_path / "run", optimizer={"learning_rate": 1e30})
    with pytest.raises(UserError, match=r"finite.*fault.json"):
        train(config)


def test_a_target_of_another_encoder_is_refused(catalog: Path, tmp_path: Path) -> None:
    moved = shutil.copytree(catalog, tmp_path / "catalog")
    (moved / "targets" / "spe" / "target.json").write_text(
        json.dumps({"name": "spe", "encoder": {**ENCODER, "sha256": "01"}})
    )
    with pytest.raises(UserError, match="target spe"):
        train(tiny_config(moved, tmp_path / "run"))


def test_a_target_of_the_same_encoder_in_another_precision_is_accepted(
    catalog: Path, tmp_path: Path
) -> None:
    moved = shutil.copytree(catalog, tmp_path / "catalog")
    (moved / "targets" / "spe" / "target.json").write_text(
        json.dumps({"name": "spe", "encoder": {**ENCODER, "precision": "bfloat16"}})
    )
    open_inputs(tiny_config(moved, tmp_path / "run"))


def test_an_unknown_target_is_refused_with_the_known_ones(catalog: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="Its targets: spe, other"):
        train(tiny_config(catalog, tmp_path / "run", target="nosuch"))


def test_scoring_does_not_change_the_training(
    catalog: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a negligible step size, a learning run equals one that never updates its weights."""
    monkeypatch.setattr("trainer.begin.require_movement", lambda *_: None)
    tiny, none = {"eta": 1e-300}, {"eta": 1e-300, "warmup_steps": 1000}
    runs = [
        tiny_config(catalog, tmp_path / name, mixture=m, training={"steps": 12})
        for name, m in (("scored", tiny), ("not", none))
    ]
    for config in runs:
        train(config)
    first, second = (without_clock(records(config.out, "train")) for config in runs)
    assert first == second
    assert len(records(runs[0].out, "update")) == 2


def test_begin_run_loads_the_last_checkpoint(catalog: Path, tmp_path: Path, config: Train) -> None:
    copied = shutil.copytree(config.out, tmp_path / "run")
    shutil.rmtree(copied / "model")
    config = tiny_config(catalog, copied)
    run = begin_run(config, open_inputs(config), Team())
    assert run is not None
    assert run.state.step == 28
    run.metrics.close()
