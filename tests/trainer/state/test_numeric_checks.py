"""Faults are reported with their sequences or ranks before they reach the weights."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file
from transformers import LlamaConfig, LlamaForCausalLM

from data_catalog import UserError
from tests.helpers.processes import run_in_processes
from tests.helpers.tiny_catalog import write_tiny_catalog
from tests.helpers.tiny_training import tiny_config
from trainer.config import Training
from trainer.distributed import Team
from trainer.loop import train
from trainer.model.engine import build_engine
from trainer.sampling.batches import Batch
from trainer.state.checksums import checkpoints
from trainer.state.numeric_checks import BatchOrigin, check_finite, check_replicas

NAN, INF = float("nan"), float("inf")
ORIGIN = BatchOrigin(100, np.array([7, 8, 9, 7]), np.array([0, 1, 2, 3]))


def check(
    out: Path, nats: list[float], loss: float, norm: float, origin: BatchOrigin = ORIGIN
) -> None:
    check_finite(out, Team(), step=5, loss=loss, norm=norm, nats=torch.tensor(nats), origin=origin)


def test_finite_numbers_pass_and_write_no_file(tmp_path: Path) -> None:
    check(tmp_path, [1.0, 2.0, 3.0, 4.0], loss=0.1, norm=1e30)
    assert not list(tmp_path.iterdir())


def test_the_faulty_sequences_are_named(tmp_path: Path) -> None:
    named = r"step 5: .* 2 of 4 .*number 101 \(leaf 8, row 1\), number 103 \(leaf 7, row 3\)\."
    with pytest.raises(UserError, match=named + ".*fault.json"):
        check(tmp_path, [1.0, NAN, 2.0, INF], loss=NAN, norm=NAN)
    fault = json.loads((tmp_path / "fault.json").read_text())
    assert fault == {
        "step": 5,
        "cause": "loss",
        "loss": None,
        "gradient_norm": None,
        "sequences": [
            {"number": 101, "leaf": 8, "row": 1, "nats": None},
            {"number": 103, "leaf": 7, "row": 3, "nats": None},
        ],
    }


def test_an_infinite_loss_is_a_fault_although_its_gradient_is_finite(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"1 of 4 .*number 100 "):
        check(tmp_path, [INF, 1.0, 2.0, 3.0], loss=INF, norm=1.0)


def test_a_faulty_gradient_with_finite_losses_names_the_whole_batch(tmp_path: Path) -> None:
    with pytest.raises(
        UserError,
        match=r"the gradient is .*fault.json lists 4 ",
    ):
        check(tmp_path, [1.0, 2.0, 3.0, 4.0], loss=0.1, norm=INF)
    fault = json.loads((tmp_path / "fault.json").read_text())
    assert fault["cause"] == "gradient"
    assert [row["number"] for row in fault["sequences"]] == [100, 101, 102, 103]
    assert [row["nats"] for row in fault["sequences"]] == [1.0, 2.0, 3.0, 4.0]


def test_many_faulty_sequences_are_counted_and_three_are_listed(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"4 of 4 .*number 102 \(leaf 9, row 2\), \.\.\..*fault.json lists 4 "
    ):
        check(tmp_path, [NAN] * 4, loss=NAN, norm=NAN)
    assert len(json.loads((tmp_path / "fault.json").read_text())["sequences"]) == 4


def test_one_poisoned_sequence_of_a_real_batch_is_found(tmp_path: Path) -> None:
    """Only word 7 uses the NaN weight.

    All gradients are NaN, but the loss of only one sequence is.
    """
    torch.manual_seed(0)
    sizes = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "vocab_size": 10,
    }
    model = LlamaForCausalLM(LlamaConfig(**sizes, tie_word_embeddings=False))
    with torch.no_grad():
        model.model.embed_tokens.weight[7] = NAN
    engine = build_engine(model, Training(micro_batch_sequences=2), Team())
    inputs = torch.tensor([[1, 2, 3], [4, 5, 6], [1, 7, 2], [3, 3, 3]])
    share, nats = engine.backward(Batch(inputs, inputs, 12))
    norm = float(engine.clip(1.0))
    with pytest.raises(UserError, match=r"1 of 4 .*number 102 \(leaf 9, row 2\)\."):
        check_finite(
            tmp_path, Team(), step=0, loss=float(share), norm=norm, nats=nats, origin=ORIGIN
        )


def test_a_diverging_run_stops_before_its_weights_change(tmp_path: Path) -> None:
    every = {
        "checkpoint": {"every_steps": 1},
        "evaluation": {"every_steps": 0},
        "mixture": {"mixer": "natural"},
    }
    config = tiny_config(
        write_tiny_catalog(tmp_path / "catalog"),
        tmp_path / "run",
        optimizer={"learning_rate": 1e30},
        **every,
    )
    with pytest.raises(UserError, match=r"finite.*fault.json"):
        train(config)
    fault = json.loads((config.out / "fault.json").read_text())
    last = checkpoints(config.out)[-1]
    assert int(last.name) == fault["step"] > 0
    assert all(tensor.isfinite().all() for tensor in load_file(last / "model.safetensors").values())
    assert 0 <= fault["sequences"][0]["number"] - 6 * fault["step"] < 6


def check_in_process(rank: int, folder: Path) -> None:
    """Save the errors of a process with different weights, and of one with a loss of NaN."""
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=3)
    team = Team(rank, 3)
    check_replicas("same", team)
    nats = torch.tensor([[1.0, 2.0], [NAN], []][rank])
    origin = BatchOrigin(30, np.array([4, 5, 6]), np.array([7, 8, 9]))
    with pytest.raises(UserError) as drifted:
        check_replicas("this" if rank != 1 else "that", team)
    with pytest.raises(UserError) as lost:
        check_finite(folder, team, step=2, loss=NAN, norm=1.0, nats=nats, origin=origin)
    (folder / str(rank)).write_text(f"{drifted.value}\n{lost.value}")
    dist.destroy_process_group()


@pytest.mark.system
def test_all_processes_report_the_fault_of_one(tmp_path: Path) -> None:
    run_in_processes(check_in_process, 3, tmp_path)
    messages = [(tmp_path / str(rank)).read_text() for rank in range(3)]
    assert messages[0] == messages[1] == messages[2]
    drifted, lost = messages[0].splitlines()
    assert "rank 1: The weights differ" in drifted
    assert "1 of 3 sequences" in lost
    assert "number 32 (leaf 6, row 9)" in lost
    assert [
        row["number"] for row in json.loads((tmp_path / "fault.json").read_text())["sequences"]
    ] == [32]


def test_replicas_of_one_process_always_agree() -> None:
    check_replicas("any", Team())
