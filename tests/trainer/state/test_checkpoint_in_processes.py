"""Any number and kind of processes resume a checkpoint. They write one together or not at all."""

import errno
import resource
import signal
from functools import partial
from pathlib import Path
from typing import Literal

import pytest
import torch

import trainer.state.checkpoint_writer
import trainer.state.shard_files
from data_catalog import UserError
from tests.helpers.processes import run_in_process
from tests.trainer.state.test_checkpoint import IDENTITY, INLINE, state_at
from trainer.config import Checkpoint, Model, Optimizer, Training
from trainer.distributed import join_team
from trainer.model.engine import build_engine
from trainer.model.model import build_model
from trainer.model.optimizer import build_optimizer
from trainer.sampling.batches import Batch
from trainer.state.checkpoint import load_checkpoint
from trainer.state.checkpoint_writer import CheckpointWriter
from trainer.state.checksums import checkpoints

SIZES = Model(hidden_size=20, layers=2, heads=2)  # 20 rows on 3 processes: the shards differ


def continue_run(
    out: Path, before: Path | None, parallel: Literal["ddp", "fsdp2", "hsdp"], steps: int
) -> int:
    """Load the checkpoint of `before`, take steps on this process's part, and save."""
    tokens = torch.arange(24).reshape(4, 6)
    trainer.state.shard_files._FILE_BYTES = 4_000
    with join_team() as team:
        model = build_model(SIZES, 31, 0, 8, seed=team.world)
        engine = build_engine(model, Training(parallel=parallel, shard_processes=2), team)
        optimizer = build_optimizer(model, Optimizer())
        if before is not None:
            load_checkpoint(checkpoints(before)[-1], state_at(0), model, optimizer)
        part = slice(team.rank * 4 // team.world, (team.rank + 1) * 4 // team.world)
        batch = Batch(tokens[part], tokens[part], tokens.numel())
        for _ in range(steps):
            engine.clear()
            engine.backward(batch)
            optimizer.step()
        engine.losses(batch)  # After an evaluation FSDP2 may hold gathered parameters.
        writer = CheckpointWriter(out, Checkpoint(), team)
        writer.save(state_at(1), model, optimizer, IDENTITY)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.zero_()  # as further training, while the checkpoint is being written
        writer.close()
    return 0


def continue_with_other_processes(folder: Path) -> None:
    """Continue with another number and kind of processes, without and with steps."""
    from tests.helpers.forked import ended, team

    for name, before, world, parallel, steps in (
        ("a", None, 1, "ddp", 2),
        ("b", "a", 2, "fsdp2", 0),
        ("c", "b", 3, "fsdp2", 2),
        ("d", "c", 3, "ddp", 0),
        ("e", "c", 4, "hsdp", 0),
        ("f", "e", 1, "ddp", 0),
        ("g", "a", 1, "ddp", 2),
    ):
        start = folder / before if before else None
        work = partial(continue_run, folder / name, start, parallel, steps)
        assert ended(team(work, world)) == [0] * world, name


def training_state(out: Path) -> dict[str, torch.Tensor]:
    """Return all tensors of a checkpoint by name."""
    model = build_model(SIZES, 31, 0, 8, seed=9)
    optimizer = build_optimizer(model, Optimizer())
    load_checkpoint(checkpoints(out)[-1], state_at(0), model, optimizer)
    state = {name: p.detach() for name, p in model.named_parameters()}
    for name, parameter in model.named_parameters():
        state |= {f"{name} {key}": value for key, value in optimizer.state[parameter].items()}
    return state


@pytest.mark.system
def test_runs_continue_with_another_number_and_kind_of_processes(tmp_path: Path) -> None:
    run_in_process(continue_with_other_processes, tmp_path)
    state = {name: training_state(tmp_path / name) for name in "abcdefg"}
    names = {f"model.norm.weight{key}" for key in ("", " step", " exp_avg", " exp_avg_sq")}
    assert names < state["a"].keys()
    assert "lm_head.weight" not in state["a"]
    for left, right, tolerance in (
        ("a", "b", 0.0),
        ("c", "d", 0.0),
        ("c", "e", 0.0),
        ("e", "f", 0.0),
        ("f", "g", 1e-5),
    ):  # All but the last were only loaded.
        assert state[left].keys() == state[right].keys()
        for name, tensor in state[left].items():
            torch.testing.assert_close(state[right][name], tensor, rtol=tolerance, atol=tolerance)
    word = "model.embed_tokens.weight"
    assert not torch.equal(state["b"][word], state["c"][word])
    assert state["c"]["model.norm.weight step"] == 4
    files = {
        name: sorted(p.name for p in checkpoints(tmp_path / name)[0].rglob("*.*"))
        for name in "acef"
    }
    others = ["arrays.npz", "checksums.json", "state.json", "weights.parquet"]
    assert files["a"] == files["f"] == sorted([*others, "model.safetensors", "optimizer.pt"])
    for name, world in (("c", 3), ("e", 4)):
        shards = [file for file in files[name] if file not in others]
        assert {file[:11] for file in shards} == {f"shard-0000{n + 1}" for n in range(world)}
        assert len(shards) > 2 * world  # Each process writes several files.


def fail_together(folder: Path, fault: str) -> int:
    """Save a checkpoint that one of the processes cannot write."""
    with join_team() as team:
        model = build_model(SIZES, 31, 0, 8, seed=0)
        build_engine(model, Training(parallel="fsdp2"), team)
        optimizer = build_optimizer(model, Optimizer())
        writer = CheckpointWriter(folder, INLINE, team)
        writer.save(state_at(1), model, optimizer, IDENTITY)
        if fault == "leader" and team.is_leader:
            trainer.state.checkpoint_writer.write_log = unwritable  # type: ignore[assignment]
        if fault == "other" and not team.is_leader:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, 1_000))
        try:
            writer.save(state_at(2), model, optimizer, IDENTITY)
        except UserError as error:
            (folder / f"{team.rank}.txt").write_text(str(error))
    return 0


def unwritable(*_: object) -> None:
    raise OSError(errno.ENOSPC, "full", "/disk/file")


def fail_in_two_ways(folder: Path) -> None:
    from tests.helpers.forked import ended, team

    for fault in ("leader", "other"):
        (folder / fault).mkdir()
        assert ended(team(partial(fail_together, folder / fault, fault), 2)) == [0, 0]


@pytest.mark.system
def test_a_checkpoint_that_one_process_cannot_write_does_not_count(tmp_path: Path) -> None:
    run_in_process(fail_in_two_ways, tmp_path)
    for fault in ("leader", "other"):
        for rank in range(2):
            said = (tmp_path / fault / f"{rank}.txt").read_text()
            assert ("/disk/file" if fault == "leader" else "0000000002/shards") in said
            assert "last complete checkpoint is that of step 1" in said
        names = [path.name for path in (tmp_path / fault / "checkpoints").iterdir()]
        assert names == ["0000000001"]
