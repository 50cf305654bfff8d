"""Checkpoints hold everything, come whole or not at all, and belong to one run."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from torch import nn

from data_catalog import UserError
from data_catalog.manifest import write_json
from data_catalog.tables import WEIGHTS
from trainer.checkpoint import State, check_identity, checkpoints, load_checkpoint, save_checkpoint
from trainer.mixers import MixerState

IDENTITY = {"fingerprint": "a", "catalog": "b"}


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(5, 3), nn.Linear(3, 5, bias=False)
        self.head.weight = self.embed.weight
        self.register_buffer("seen", torch.zeros(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.embed(x)).logsumexp(-1).sum()


def make(seed: int) -> tuple[Tied, torch.optim.AdamW]:
    torch.manual_seed(seed)
    model = Tied()
    return model, torch.optim.AdamW(model.parameters(), fused=True)


def step(model: Tied, optimizer: torch.optim.AdamW) -> None:
    optimizer.zero_grad()
    model(torch.tensor([0, 1, 4])).backward()
    optimizer.step()


def state_at(number: int) -> State:
    row = {"stage": 0, "first_sequence": 0, "alpha": [0.1, 0.9], "sampling": [1 / 3, 2 / 3], "scores": None}
    mixer = MixerState(np.log([1e-300, 1.0]), np.array([1 / 3, 2 / 3]))
    return State(mixer, np.array([3, 0, 9]), [row], step=number, tokens=77, seconds=1.5, metrics_bytes=11)


def save(out: Path, number: int, model: Tied, optimizer: torch.optim.AdamW, keep: int = 2) -> None:
    save_checkpoint(out, state_at(number), model, optimizer, identity=IDENTITY, keep=keep)


def test_a_restored_run_goes_on_bit_for_bit(tmp_path: Path) -> None:
    model, optimizer = make(0)
    model.seen += 2
    for _ in range(3):
        step(model, optimizer)
    save(tmp_path, 3, model, optimizer)
    other, its_optimizer = make(1)
    state = load_checkpoint(checkpoints(tmp_path)[-1], other, its_optimizer)
    for _ in range(3):
        step(model, optimizer)
        step(other, its_optimizer)
    assert torch.equal(model.embed.weight, other.embed.weight)
    assert other.head.weight is other.embed.weight
    assert other.seen.tolist() == [2, 2]
    saved = state_at(3)
    assert (state.step, state.tokens, state.seconds, state.metrics_bytes) == (3, 77, 1.5, 11)
    assert state.log == saved.log
    assert state.used.tolist() == [3, 0, 9]
    assert state.mixer.log_alpha.tolist() == saved.mixer.log_alpha.tolist()
    assert state.mixer.sampling.tolist() == saved.mixer.sampling.tolist()


def test_only_the_last_ones_are_kept(tmp_path: Path) -> None:
    model, optimizer = make(0)
    for number in (1, 2, 10, 100):
        save(tmp_path, number, model, optimizer)
    assert [path.name for path in checkpoints(tmp_path)] == ["0000000010", "0000000100"]


def test_an_unfinished_one_does_not_count_and_is_cleared_away(tmp_path: Path) -> None:
    model, optimizer = make(0)
    save(tmp_path, 1, model, optimizer)
    (tmp_path / "checkpoints" / ".0000000002.99.tmp").mkdir()
    (tmp_path / "checkpoints" / ".0000000002.99.tmp" / "state.json").write_text("{")
    assert [path.name for path in checkpoints(tmp_path)] == ["0000000001"]
    save(tmp_path, 2, model, optimizer)
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["0000000001", "0000000002"]


def test_no_file_of_a_checkpoint_is_a_pickle_that_runs_code(tmp_path: Path) -> None:
    model, optimizer = make(0)
    step(model, optimizer)
    save(tmp_path, 1, model, optimizer)
    folder = checkpoints(tmp_path)[0]
    assert sorted(p.name for p in folder.iterdir()) == [
        "counters.npy",
        "model.safetensors",
        "optimizer.pt",
        "state.json",
        "weights.parquet",
    ]
    assert torch.load(folder / "optimizer.pt", weights_only=True)["state"]
    assert pq.read_schema(folder / "weights.parquet").equals(WEIGHTS)


def test_another_run_or_catalog_is_refused(tmp_path: Path) -> None:
    write_json(tmp_path / "config.json", IDENTITY)
    check_identity(tmp_path, {"fingerprint": "x", "catalog": "y"})  # nothing to lose yet
    model, optimizer = make(0)
    save(tmp_path, 1, model, optimizer)
    check_identity(tmp_path, IDENTITY)
    with pytest.raises(UserError, match="another config"):
        check_identity(tmp_path, {**IDENTITY, "fingerprint": "x"})
    with pytest.raises(UserError, match="another catalog"):
        check_identity(tmp_path, {**IDENTITY, "catalog": "x"})


def test_a_model_of_another_shape_is_refused(tmp_path: Path) -> None:
    model, optimizer = make(0)
    save(tmp_path, 1, model, optimizer)
    with pytest.raises(UserError, match="not those of this model"):
        load_checkpoint(checkpoints(tmp_path)[0], nn.Linear(2, 2), optimizer)
