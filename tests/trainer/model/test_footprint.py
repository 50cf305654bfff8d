"""State and checkpoints by formula, compared with what four processes hold and write."""

import json
import struct
from functools import partial
from pathlib import Path

import pytest
import torch
from torch.distributed.tensor import DTensor

from tests.helpers.forked import ended, team
from tests.helpers.processes import run_in_process
from tests.trainer.state.test_checkpoint import IDENTITY, state_at
from trainer.config import Checkpoint, Model, Optimizer, Train, Training
from trainer.distributed import join_team
from trainer.model.engine import build_engine
from trainer.model.footprint import footprint
from trainer.model.memory import empty_model
from trainer.model.model import build_model
from trainer.model.optimizer import build_optimizer
from trainer.sampling.batches import Batch
from trainer.state.checkpoint_writer import CheckpointWriter
from trainer.state.checksums import checkpoints

WORLD = 4
SIZES = Model(hidden_size=32, layers=2, heads=2)


def train_step(out: Path, optimizer: Optimizer) -> int:
    """Take a step on four processes, save a checkpoint, and write the size of the shards' state."""
    with join_team() as processes:
        model = build_model(SIZES, 64, 0, 8, seed=0)
        engine = build_engine(model, Training(parallel="fsdp2"), processes)
        made = build_optimizer(model, optimizer)
        tokens = torch.arange(8).reshape(1, 8)
        engine.backward(Batch(tokens, tokens, WORLD * 8))
        made.step()
        state = [value for values in made.state.values() for value in values.values()]
        tensors = [*model.parameters(), *(p.grad for p in model.parameters()), *state]
        local = [t.to_local() if isinstance(t, DTensor) else t for t in tensors]
        held = sum(t.numel() * t.element_size() for t in local if t.ndim)
        (out.parent / f"{out.name}-{processes.rank}").write_text(str(held))
        writer = CheckpointWriter(out, Checkpoint(), processes)
        writer.save(state_at(1), model, made, IDENTITY)
        writer.close()
    return 0


def train_all(folder: Path) -> None:
    for kind in ("adamw", "muon"):
        work = partial(train_step, folder / kind, Optimizer(kind=kind))
        assert ended(team(work, WORLD)) == [0] * WORLD


@pytest.mark.system
def test_four_processes_hold_and_write_what_the_formula_says(tmp_path: Path) -> None:
    run_in_process(train_all, tmp_path)
    for kind in ("adamw", "muon"):
        config = Train.model_validate(
            {"catalog": "c", "out": "o", "target": "t", "optimizer": {"kind": kind}}
        )
        model = empty_model(SIZES, 64, 8)
        assert model is not None
        whole = footprint(model, config, 1, aligns=False).copied_bytes
        found = footprint(model, config, WORLD, aligns=False)
        shards = list(checkpoints(tmp_path / kind)[0].rglob("*.safetensors"))
        assert found.checkpoint_bytes == sum(map(content_bytes, shards))
        held = sum(int((tmp_path / f"{kind}-{rank}").read_text()) for rank in range(WORLD))
        assert held == pytest.approx(whole, rel=0.01)


def content_bytes(path: Path) -> int:
    """Return the size of a file's tensors."""
    with path.open("rb") as file:
        (size,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(size))
    return max(entry["data_offsets"][1] for key, entry in header.items() if key != "__metadata__")


def test_the_plan_of_a_model_of_seven_billion_parameters(tmp_path: Path) -> None:
    """The sizes of Llama 2 7B, by hand."""
    model = Model(preset="750m", architecture="llama", hidden_size=4_096, layers=32, heads=32)
    empty = empty_model(model, 32_000, 4_096)
    assert empty is not None
    config = Train.model_validate(
        {
            "catalog": tmp_path,
            "out": tmp_path / "out",
            "target": "t",
            "training": {"steps": 1_000, "batch_sequences": 1_024, "sequence_tokens": 4_096},
        }
    )
    parameters = 32_000 * 4_096 + 32 * (4 * 4_096**2 + 3 * 4_096 * 10_944 + 2 * 4_096) + 4_096
    found = footprint(empty, config, 64, aligns=True)
    assert found.copied_bytes == pytest.approx(20 * parameters, rel=1e-6)
    assert found.checkpoint_bytes == pytest.approx(12 * parameters, rel=1e-6)
    layer, rest = 4 * (4 * 4_096**2 + 3 * 4_096 * 10_944), 4 * 32_000 * 4_096
    assert found.sharded_bytes == pytest.approx(20 * parameters / 64 + rest + 3 * layer, rel=1e-3)
    operations = (6 * parameters + 12 * 32 * 4_096 * 4_096) * 1_000 * 1_024 * 4_096
    assert found.operations == pytest.approx(operations, rel=1e-3)
    assert found.hours == pytest.approx(operations / 64 / 4e14 / 3_600, rel=1e-3)
