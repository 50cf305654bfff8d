"""The state of a run: what is kept, and how a run that was stopped goes on, bit for bit."""

import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from jaxtyping import Int
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from data_catalog.errors import UserError
from data_catalog.manifest import replacing, write_json
from data_catalog.tables import WEIGHTS
from trainer.mixers import MixerState


@dataclass
class State:
    """Everything that a step changes, apart from the model and the optimizer."""

    mixer: MixerState
    used: Int[np.ndarray, " leaves"]  # draws of each leaf in all finished stages
    log: list[dict[str, Any]] = field(default_factory=list)  # rows of tables.WEIGHTS, one a stage
    step: int = 0  # steps done
    tokens: int = 0  # labels trained on
    seconds: float = 0.0
    data_seconds: float = 0.0  # waited for batches
    scoring_seconds: float = 0.0
    metrics_bytes: int = 0


SCALARS = ("step", "tokens", "seconds", "data_seconds", "scoring_seconds", "metrics_bytes")


def write_log(path: Path, log: list[dict[str, Any]]) -> None:
    """Write the weight log, replacing the file at once."""
    with replacing(path) as temporary:
        pq.write_table(pa.Table.from_pylist(log, schema=WEIGHTS), temporary)


def save_checkpoint(
    out: Path, state: State, model: nn.Module, optimizer: torch.optim.Optimizer, *, identity: dict[str, str], keep: int
) -> None:
    """Write `out/checkpoints/STEP/` and remove all but the last `keep`."""
    folder = out / "checkpoints" / f"{state.step:010d}"
    with replacing(folder) as temporary:
        temporary.mkdir()
        save_file({name: tensor.contiguous() for name, tensor in _tensors(model).items()}, temporary / "model.safetensors")
        torch.save(optimizer.state_dict(), temporary / "optimizer.pt")
        write_log(temporary / "weights.parquet", state.log)
        np.save(temporary / "counters.npy", state.used, allow_pickle=False)
        mixer = {"log_alpha": state.mixer.log_alpha.tolist(), "sampling": state.mixer.sampling.tolist()}
        write_json(temporary / "state.json", {**{name: getattr(state, name) for name in SCALARS}, "mixer": mixer, **identity})
    for old in checkpoints(out)[:-keep]:
        shutil.rmtree(old)
    for unfinished in folder.parent.glob(".*.tmp"):  # of a process that was killed while it wrote
        shutil.rmtree(unfinished)


def load_checkpoint(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> State:
    """Put a checkpoint's tensors into `model` and `optimizer`, and return its state."""
    tensors = load_file(folder / "model.safetensors")
    current = _tensors(model)
    if current.keys() != tensors.keys():
        raise UserError(f"{folder}: its tensors are not those of this model; start in another folder")
    with torch.no_grad():
        for name, tensor in current.items():
            tensor.copy_(tensors[name])
    optimizer.load_state_dict(torch.load(folder / "optimizer.pt", map_location="cpu", weights_only=True))
    saved = json.loads((folder / "state.json").read_text(encoding="utf-8"))
    mixer = MixerState(np.array(saved["mixer"]["log_alpha"]), np.array(saved["mixer"]["sampling"]))
    used = np.load(folder / "counters.npy", allow_pickle=False)
    log = pq.read_table(folder / "weights.parquet").to_pylist()
    return State(mixer, used, log, **{name: saved[name] for name in SCALARS})


def checkpoints(out: Path) -> list[Path]:
    """Finished checkpoints, oldest first."""
    return sorted(path.parent for path in (out / "checkpoints").glob("[0-9]*/state.json"))


def check_identity(out: Path, identity: dict[str, str]) -> None:
    """See that what `out` holds belongs to this run.

    Raises:
        UserError: it holds a run of another config or on another catalog.
    """
    path = out / "config.json"
    if not path.is_file() or not (checkpoints(out) or (out / "model").is_dir()):
        return
    found = json.loads(path.read_text(encoding="utf-8"))
    for name, expected in identity.items():
        if found.get(name) != expected:
            what = "another catalog" if name == "catalog" else "another config"
            raise UserError(f"{out}: holds a run with {what} (see its config.json); it cannot go on with this one: choose another out")


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and saved buffers by name, tied ones once."""
    every_name = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    buffers = {name: tensor for name, tensor in model.state_dict().items() if name not in every_name}
    return {**{name: p.detach() for name, p in model.named_parameters()}, **buffers}
