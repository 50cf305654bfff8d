"""Two processes draw the same stream, have the same weights and change them at the same time."""

import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

from tests.helpers.processes import train_in_processes
from tests.helpers.tiny_catalog import write_tiny_catalog
from tests.helpers.tiny_training import finish, records, start, tiny_config, write_config
from trainer.inputs import open_inputs
from trainer.sampling.batches import Batch, interval_batches
from trainer.sampling.plan import draw_interval, leaf_weights


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("distributed")
    write_tiny_catalog(folder / "catalog")
    train_in_processes(write_config(folder, folder / "catalog", folder / "one"))
    finish(write_config(folder, folder / "catalog", folder / "two"), processes=2)
    return folder


def test_two_processes_train_the_same_model(folder: Path) -> None:
    one, two = (
        [record["loss"] for record in records(folder / name, "train")] for name in ("one", "two")
    )
    np.testing.assert_allclose(two, one, rtol=1e-4)
    tokens = (
        [record["tokens"] for record in records(folder / name, "train")] for name in ("one", "two")
    )
    assert next(tokens) == next(tokens)
    evals = (
        [record["loss"] for record in records(folder / name, "eval")] for name in ("one", "two")
    )
    np.testing.assert_allclose(*evals, rtol=1e-4)


def test_processes_with_a_shard_each_train_the_same_model(folder: Path) -> None:
    out = folder / "shards"
    config = write_config(folder, folder / "catalog", out)
    train_in_processes(config, "--set", "training.parallel=fsdp2", world=2)
    for kind, numbers in (
        ("train", ["loss", "gradient_norm"]),
        ("update", ["scores", "target_gradient_norm"]),
        ("eval", ["loss"]),
    ):
        for name in numbers:
            one, shards = (
                [record[name] for record in records(run, kind)] for run in (folder / "one", out)
            )
            np.testing.assert_allclose(shards, one, rtol=1e-4, atol=1e-6)
    weights = (load_file(run / "model" / "model.safetensors") for run in (folder / "one", out))
    one, shards = next(weights), next(weights)
    assert shards.keys() == one.keys()
    for name, tensor in one.items():
        torch.testing.assert_close(shards[name], tensor, rtol=0, atol=2e-3)


def test_scores_do_not_depend_on_the_number_of_processes(folder: Path) -> None:
    one, two = (records(folder / name, "update") for name in ("one", "two"))
    np.testing.assert_allclose(two[0]["scores"], one[0]["scores"], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(
        [u["target_loss"] for u in two], [u["target_loss"] for u in one], rtol=1e-4
    )
    weights = (
        np.array(pq.read_table(folder / name / "weights.parquet")["sampling"].to_pylist())
        for name in ("one", "two")
    )
    np.testing.assert_allclose(*weights, atol=1e-5)


def test_new_weights_act_on_the_next_batch_of_every_rank(folder: Path) -> None:
    """Recompute each interval from the logged weights and compare with what each rank has read."""
    config = tiny_config(folder / "catalog", folder / "two")
    inputs = open_inputs(config)
    used, changed = np.zeros(8, np.int64), 0
    read = {record["step"]: record["batch"] for record in records(folder / "two", "train")}
    for row in pq.read_table(folder / "two" / "weights.parquet").to_pylist():
        stage, steps = row["stage"], range(min(5, 28 - 5 * row["stage"]))
        plan = draw_interval(
            stage,
            inputs.drawn(leaf_weights(np.array(row["sampling"]), inputs.basis.matrix), config),
            inputs.corpus.sequences,
            used,
            draws=30,
            seed=0,
        )
        for rank in range(2):
            batches: list[Batch] = list(
                interval_batches(inputs.corpus, plan, steps, batch_sequences=6, rank=rank, world=2)
            )
            assert [batch.digest() for batch in batches] == [
                read[5 * stage + step + 1][rank] for step in steps
            ]
        stale = draw_interval(
            stage,
            inputs.drawn(leaf_weights(np.full(4, 0.25), inputs.basis.matrix), config),
            inputs.corpus.sequences,
            used,
            draws=30,
            seed=0,
        )
        changed += stale.read().leaves[:6].tolist() != plan.read().leaves[:6].tolist()
        used = used + plan.counts(30)
    assert changed >= 2  # first batches of stages that stale weights would have drawn otherwise


def test_a_run_of_one_process_goes_on_with_two(folder: Path) -> None:
    out = folder / "grown"
    config = write_config(folder, folder / "catalog", out)
    train_in_processes(config, "--set", "checkpoint.keep=10")
    for late in (out / "checkpoints").iterdir():
        if late.name > "0000000008":
            shutil.rmtree(late)
    shutil.rmtree(out / "model")  # now as a run killed in one of its first steps leaves it
    train_in_processes(config, world=2)
    steps = records(out, "train")
    assert [len(record["batch"]) for record in steps] == [1] * 8 + [2] * 20
    np.testing.assert_allclose(
        [r["loss"] for r in steps], [r["loss"] for r in records(folder / "one", "train")], rtol=1e-4
    )


def test_two_processes_go_on_between_the_steps_that_one_has_scored(folder: Path) -> None:
    scored = ("measure_on=batch", "backend=ghost", "scores=target", "measure_steps=3")
    settings = [f"mixture.{setting}" for setting in scored]
    settings += ["training.steps=16", "checkpoint.every_steps=1", "checkpoint.keep=99"]
    changed = [word for setting in settings for word in ("--set", setting)]
    config = write_config(folder, folder / "catalog", folder / "scored")
    train_in_processes(config, *changed)
    alone = records(folder / "scored", "update")
    for late in (folder / "scored" / "checkpoints").iterdir():
        if late.name > "0000000009":
            shutil.rmtree(late)
    shutil.rmtree(folder / "scored" / "model")  # now as a run killed in step 10
    train_in_processes(config, *changed, world=2)
    steps = records(folder / "scored", "train")
    assert [len(record["batch"]) for record in steps] == [1] * 9 + [2] * 7
    together = records(folder / "scored", "update")
    assert [update["step"] for update in together] == [5, 10, 15]
    for name in ("scores", "errors", "losses", "target_loss", "target_gradient_norm"):
        for one, two in zip(alone, together, strict=True):
            np.testing.assert_allclose(
                np.array(two[name], float), np.array(one[name], float), rtol=1e-3, atol=1e-6
            )


def test_a_mistake_ends_all_processes_with_one_sentence(folder: Path) -> None:
    process = start(write_config(folder, folder / "nowhere", folder / "none"), processes=2)
    _, errors = process.communicate(timeout=120)
    assert process.returncode != 0
    assert errors.count("no catalog here") == 1
