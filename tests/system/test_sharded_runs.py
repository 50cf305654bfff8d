"""Runs of a sharded model: killed while they write a checkpoint, and with two copies of shards."""

import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tests.helpers.processes import run_in_process, train_in_processes
from tests.helpers.tiny_catalog import write_tiny_catalog
from tests.helpers.tiny_training import records, without_clock, write_config

SHARDED = ("--set", "training.parallel=fsdp2", "--set", "checkpoint.every_steps=2")
COPIES = ("--set", "training.parallel=hsdp", "--set", "training.shard_processes=2")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sharded")
    write_tiny_catalog(folder / "catalog")
    return folder


def wait_for_a_checkpoint(children: list[int], out: Path, step: int) -> None:
    """Return while the processes write a checkpoint, after they have logged `step`."""
    from tests.helpers.forked import wait_for_step

    wait_for_step(children, out, step)
    until = time.monotonic() + 60
    while not any(out.glob("checkpoints/.*.tmp/shards")):
        assert time.monotonic() < until
        time.sleep(0.0002)


def kill_while_saving(config: Path, out: Path) -> None:
    """Kill one of two processes in the middle of a checkpoint, each in turn, and then finish."""
    from tests.helpers.forked import ended, start

    for victim, step in ((1, 5), (0, 11)):
        children = start(config, *SHARDED, world=2)
        wait_for_a_checkpoint(children, out, step)
        os.kill(children[victim], signal.SIGKILL)
        time.sleep(0.2)
        os.kill(children[1 - victim], signal.SIGKILL)  # as torch's launcher does
        codes = ended(children)
        assert codes[victim] == -signal.SIGKILL
        assert codes[1 - victim] != 0  # it may have noticed the death first
        assert not (out / "model").exists()
    assert set(ended(start(config, *SHARDED, world=2))) == {0}


def test_a_run_killed_while_saving_shards_ends_like_an_undisturbed_one(folder: Path) -> None:
    whole = write_config(folder, folder / "catalog", folder / "whole")
    train_in_processes(whole, *SHARDED, world=2)
    killed = write_config(folder, folder / "catalog", folder / "killed")
    run_in_process(kill_while_saving, killed, folder / "killed")
    for kind in ("train", "update", "eval"):
        first, second = (without_clock(records(folder / n, kind)) for n in ("whole", "killed"))
        assert first == second, kind  # bit for bit
    models = [load_file(folder / n / "model" / "model.safetensors") for n in ("whole", "killed")]
    assert models[0].keys() == models[1].keys()
    assert all(torch.equal(tensor, models[1][name]) for name, tensor in models[0].items())
    assert not list((folder / "killed" / "checkpoints").glob(".*.tmp"))


def test_two_copies_of_two_shards_train_the_model_of_one_process(folder: Path) -> None:
    one, four = (
        write_config(folder, folder / "catalog", folder / name) for name in ("one", "four")
    )
    train_in_processes(one)
    train_in_processes(four, *COPIES, world=4)
    for kind, numbers in (
        ("train", ["loss", "gradient_norm"]),
        ("update", ["scores", "target_gradient_norm"]),
        ("eval", ["loss"]),
    ):
        for name in numbers:
            alone, together = (
                [record[name] for record in records(folder / run, kind)] for run in ("one", "four")
            )
            np.testing.assert_allclose(together, alone, rtol=1e-4, atol=1e-6)
    weights = [load_file(folder / run / "model" / "model.safetensors") for run in ("one", "four")]
    assert weights[0].keys() == weights[1].keys()
    for name, tensor in weights[0].items():
        torch.testing.assert_close(weights[1][name], tensor, rtol=0, atol=2e-3)
