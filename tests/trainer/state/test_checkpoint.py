"""Checkpoints are complete, atomic, and independent of the number of processes."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import trainer.state.checkpoint_writer
from data_catalog import UserError
from data_catalog.format.tables import WEIGHTS
from data_catalog.temporary import replacing
from tests.helpers.leftovers import temporary_of_killed
from trainer.config import Checkpoint
from trainer.distributed import Team
from trainer.mixers import MixerState
from trainer.state.checkpoint import State, load_checkpoint
from trainer.state.checkpoint_writer import CheckpointWriter
from trainer.state.checksums import checkpoints

IDENTITY = {"fingerprint": "a", "catalog": "b", "tokenizer": "c"}
INLINE = Checkpoint(asynchronous=False)


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
    row = {
        "stage": 0,
        "first_sequence": 0,
        "alpha": [0.1, 0.9],
        "sampling": [1 / 3, 2 / 3],
        "scores": None,
    }
    mixer = MixerState(
        np.log([1e-300, 1.0]), np.array([1 / 3, 2 / 3]), {"mean_loss": np.array([[0.1, np.nan]])}
    )
    return State(
        mixer, np.array([3, 0, 9]), [row], step=number, tokens=77, seconds=1.5, metrics_bytes=11
    )


def save(
    out: Path,
    number: int,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    settings: Checkpoint = INLINE,
) -> None:
    writer = CheckpointWriter(out, settings, Team())
    writer.save(state_at(number), model, optimizer, IDENTITY)
    writer.close()


@contextmanager
def blocked_disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Make no checkpoint complete until the event is set."""
    free = threading.Event()

    @contextmanager
    def waiting(path: Path) -> Iterator[Path]:
        with replacing(path) as temporary:
            assert free.wait(60)
            yield temporary

    with monkeypatch.context() as patched:
        patched.setattr(trainer.state.checkpoint_writer, "replacing", waiting)
        yield free
        free.set()


def test_a_restored_run_continues_bit_for_bit(tmp_path: Path) -> None:
    model, optimizer = make(0)
    model.seen += 2
    for _ in range(3):
        step(model, optimizer)
    save(tmp_path, 3, model, optimizer)
    other, its_optimizer = make(1)
    state = load_checkpoint(checkpoints(tmp_path)[-1], state_at(0), other, its_optimizer)
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
    np.testing.assert_array_equal(state.mixer.memory["mean_loss"], [[0.1, np.nan]])


def test_a_checkpoint_has_the_state_at_the_time_of_the_save(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, optimizer = make(0)
    for _ in range(2):
        step(model, optimizer)
    save(tmp_path / "inline", 2, model, optimizer)
    with blocked_disk(monkeypatch) as disk:
        writer, state = CheckpointWriter(tmp_path, Checkpoint(), Team()), state_at(2)
        writer.save(state, model, optimizer, IDENTITY)
        step(model, optimizer)
        model.seen += 1
        state.step, state.metrics_bytes = 3, 99
        state.used += 1
        state.mixer.sampling[:] = 0
        state.log.append(state.log[0])
        assert checkpoints(tmp_path) == []
        disk.set()
        writer.close()
    folders = [checkpoints(out)[0] for out in (tmp_path / "inline", tmp_path)]
    for name in ("model.safetensors", "weights.parquet", "arrays.npz", "state.json"):
        inline, written = ((folder / name).read_bytes() for folder in folders)
        assert written == inline, name
    inline, written = (
        torch.load(folder / "optimizer.pt")["state"]["embed.weight"] for folder in folders
    )
    assert written.keys() == {"step", "exp_avg", "exp_avg_sq"}
    assert all(torch.equal(written[key], inline[key]) for key in inline)


def test_checkpoints_are_written_one_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, optimizer = make(0)
    with blocked_disk(monkeypatch) as disk:
        writer = CheckpointWriter(tmp_path, Checkpoint(), Team())
        writer.save(state_at(1), model, optimizer, IDENTITY)
        second = threading.Thread(
            target=writer.save, args=(state_at(2), model, optimizer, IDENTITY)
        )
        second.start()
        second.join(0.1)
        assert second.is_alive()  # waiting for the first
        disk.set()
        second.join(60)
        writer.close()
    assert [path.name for path in checkpoints(tmp_path)] == ["0000000001", "0000000002"]


@pytest.mark.parametrize("moment", ["save", "close"])
def test_an_error_of_the_writing_thread_is_raised_at_the_next_call(
    tmp_path: Path, moment: str
) -> None:
    model, optimizer = make(0)
    writer = CheckpointWriter(tmp_path, Checkpoint(), Team())
    (tmp_path / "checkpoints").write_text("where the folder should be")
    writer.save(state_at(4), model, optimizer, IDENTITY)
    with pytest.raises(UserError, match=r"checkpoint of step 4 .* none"):
        writer.close() if moment == "close" else writer.save(
            state_at(5), model, optimizer, IDENTITY
        )
    writer.close()  # The error is raised only once.


def test_the_newest_checkpoints_and_those_of_chosen_steps_are_kept(tmp_path: Path) -> None:
    model, optimizer = make(0)
    writer = CheckpointWriter(
        tmp_path, Checkpoint(asynchronous=False, keep=2, keep_every_steps=4), Team()
    )
    for number in (2, 4, 6, 8, 10, 11, 12):
        writer.save(state_at(number), model, optimizer, IDENTITY)
    assert [int(path.name) for path in checkpoints(tmp_path)] == [4, 8, 11, 12]
    assert len(list((tmp_path / "checkpoints").iterdir())) == 4


def test_unfinished_files_of_killed_processes_are_ignored_and_removed(tmp_path: Path) -> None:
    model, optimizer = make(0)
    save(tmp_path, 1, model, optimizer)
    unfinished = temporary_of_killed(tmp_path / "checkpoints" / "0000000002")
    unfinished.mkdir()
    (unfinished / "state.json").write_text("{")
    weights = temporary_of_killed(tmp_path / "weights.parquet")
    weights.write_text("half")
    assert [path.name for path in checkpoints(tmp_path)] == ["0000000001"]
    CheckpointWriter(tmp_path, INLINE, Team(rank=1, world=2))
    assert weights.exists()  # The leader may be writing it.
    CheckpointWriter(tmp_path, INLINE, Team())
    assert sorted(path.name for path in tmp_path.rglob("*.tmp")) == []
    assert [path.name for path in checkpoints(tmp_path)] == ["0000000001"]


def test_no_file_of_a_checkpoint_is_a_pickle_that_runs_code(tmp_path: Path) -> None:
    model, optimizer = make(0)
    step(model, optimizer)
    save(tmp_path, 1, model, optimizer)
    folder = checkpoints(tmp_path)[0]
    names = [
        "arrays.npz",
        "checksums.json",
        "model.safetensors",
        "optimizer.pt",
        "state.json",
        "weights.parquet",
    ]
    assert sorted(path.name for path in folder.iterdir()) == names
    assert torch.load(folder / "optimizer.pt", weights_only=True)["state"]
    assert np.load(folder / "arrays.npz", allow_pickle=False)["used"].tolist() == [3, 0, 9]
    assert pq.read_schema(folder / "weights.parquet").equals(WEIGHTS)
    assert set(load_file(folder / "model.safetensors")) == {
        "embed.weight",
        "seen",
    }  # tied tensors once


def test_optimizer_settings_are_those_of_the_config(tmp_path: Path) -> None:
    model, optimizer = make(0)
    step(model, optimizer)
    save(tmp_path, 1, model, optimizer)
    changed = torch.optim.AdamW(
        model.parameters(), lr=0.5, betas=(0.5, 0.6), weight_decay=0.7, fused=True
    )
    load_checkpoint(checkpoints(tmp_path)[0], state_at(0), model, changed)
    group = changed.param_groups[0]
    assert (group["lr"], group["betas"], group["weight_decay"]) == (0.5, (0.5, 0.6), 0.7)
    assert changed.state[model.embed.weight]["step"] == 1


def test_saving_before_the_first_step_takes_no_step(tmp_path: Path) -> None:
    model, optimizer = make(0)
    save(tmp_path, 0, model, optimizer)
    assert not optimizer.state
    load_checkpoint(checkpoints(tmp_path)[0], state_at(0), model, optimizer)
    step(model, optimizer)
    assert optimizer.state[model.embed.weight]["step"] == 1


def test_a_checkpoint_of_another_shape_is_refused(tmp_path: Path) -> None:
    model, optimizer = make(0)
    save(tmp_path, 1, model, optimizer)
    folder, fresh = checkpoints(tmp_path)[0], state_at(0)
    with pytest.raises(UserError, match=r"0000000001: .*tensors"):
        load_checkpoint(folder, fresh, nn.Linear(2, 2), optimizer)
    with pytest.raises(UserError, match=r"3 leaves, .* 4"):
        load_checkpoint(folder, State(fresh.mixer, np.zeros(4, np.int64)), model, optimizer)
    with pytest.raises(UserError, match=r"2 basis members, .* 3"):
        load_checkpoint(
            folder, State(MixerState(np.zeros(3), np.ones(3) / 3), fresh.used), model, optimizer
        )
