"""Checkpoints: the state of a run, from which a stopped run resumes bit for bit."""

import json
from collections.abc import Mapping
from dataclasses import Field, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from jaxtyping import Float, Int
from torch import nn

from data_catalog.errors import UserError
from data_catalog.format.damage import reading
from data_catalog.format.tables import WEIGHTS
from data_catalog.temporary import replacing
from trainer.mixers import MixerState
from trainer.state.checksums import STATE
from trainer.state.shard_files import SHARDS, FetchShards, load_shards, named_state, shard_shapes
from trainer.state.tensors import Named, copied, is_sharded, model_tensors, shapes
from trainer.state.whole_files import check_whole, load_whole, whole_shapes

_REMEDY = "Restore it from a copy, or remove this checkpoint."


@dataclass
class State:
    """Everything that a step changes, apart from the model and the optimizer.

    Fields that are int, float or array are saved and restored automatically, under the `key` of
    their metadata or else their name. A new field needs a default for older checkpoints.
    """

    mixer: MixerState
    used: Int[np.ndarray, " leaves"]
    """Number of draws per leaf in all finished intervals."""
    log: list[dict[str, Any]] = field(default_factory=list)
    """Weight log: one row of `tables.WEIGHTS` per interval."""
    pending_measurement: Float[np.ndarray, " numbers"] = field(
        default_factory=lambda: np.zeros(0), metadata={"key": "heard"}
    )
    """`MixerMeasurement.flat` of the last step's batch until it is used. Empty if there is none."""
    scored_batches: Float[np.ndarray, "steps columns"] = field(
        default_factory=lambda: np.zeros((0, 0))
    )
    """`score_batch` of every training batch of this interval that was scored."""
    recent_steps: Float[np.ndarray, "recent 2"] = field(default_factory=lambda: np.zeros((0, 2)))
    """Loss and gradient norm of the last steps, if outliers are skipped."""
    step: int = 0
    """Number of steps taken."""
    tokens: int = 0
    """Number of labels trained on."""
    seconds: float = 0.0
    """Run time."""
    data_seconds: float = 0.0
    """Time spent waiting for batches."""
    scoring_seconds: float = 0.0
    """Time spent measuring for the mixer."""
    metrics_bytes: int = 0
    """Size of metrics.jsonl."""


@dataclass(frozen=True)
class Saved:
    """The contents of a checkpoint's files, without the tensors of the model and its optimizer."""

    about: Mapping[str, Any]
    arrays: Mapping[str, np.ndarray]
    log: list[dict[str, Any]]


@dataclass(frozen=True)
class Snapshot:
    """Copy of everything that a checkpoint holds. Training can continue while it is written."""

    step: int
    about: Mapping[str, Any]
    """Content of state.json: the scalars and the identity of the run."""
    arrays: Mapping[str, np.ndarray]
    log: list[dict[str, Any]]
    sharded: bool
    """True if every process writes a part of the tensors."""
    tensors: Named
    """The live tensors of the model and its optimizer, by `shard_files.named_state`."""
    copies: Named
    """Copies of the part of each on this process, in CPU memory."""


def take_snapshot(
    state: State,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    identity: Mapping[str, str],
    is_leader: bool,
) -> Snapshot:
    """Copy everything to CPU memory.

    If the model is not sharded, only the leader copies its tensors.
    """
    parts = state_parts(state)
    tensors, sharded = named_state(model, optimizer), is_sharded(model)
    return Snapshot(
        step=state.step,
        about={**identity, **parts.about},
        arrays=parts.arrays,
        log=parts.log,
        sharded=sharded,
        tensors=tensors,
        copies={name: copied(tensor) for name, tensor in tensors.items() if sharded or is_leader},
    )


def write_log(path: Path, log: list[dict[str, Any]]) -> None:
    """Write the weight log, replacing the file atomically."""
    with replacing(path) as temporary:
        pq.write_table(pa.Table.from_pylist(log, schema=WEIGHTS), temporary)


def read_checkpoint(folder: Path) -> Saved:
    """Read every file of a checkpoint of an earlier version, which has no checksums.

    Raises:
        DamagedFileError: A file is missing or cannot be read, or an array is missing.
    """
    check_whole(folder, _REMEDY)
    return _read_state(folder)


def _read_state(folder: Path) -> Saved:
    with (
        reading(folder / "arrays.npz", _REMEDY),
        np.load(folder / "arrays.npz", allow_pickle=False) as file,
    ):
        arrays = dict(file)
        _ = (arrays["used"], arrays["mixer.log_alpha"], arrays["mixer.sampling"])
    with reading(folder / STATE, _REMEDY):
        about = {**json.loads((folder / STATE).read_bytes())}
    with reading(folder / "weights.parquet", _REMEDY):
        log = pq.read_table(folder / "weights.parquet", schema=WEIGHTS).to_pylist()
    return Saved(about, arrays, log)


@torch.no_grad()
def load_checkpoint(
    folder: Path,
    fresh: State,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    fetch: FetchShards | None = None,
) -> State:
    """Load a checkpoint into `model` and `optimizer`, sharded or not, and return its state.

    Every process reads its part of the tensors, whatever processes wrote the checkpoint. The
    optimizer's settings are kept.

    Args:
        folder: the checkpoint's folder.
        fresh: the state that this run would start with.
        model: the plain model.
        optimizer: its optimizer.
        fetch: for a run in a store, called with the shards that this process reads. None: all are
            there.

    Raises:
        UserError: The checkpoint belongs to another model, basis or cluster tree, or is damaged.
    """
    saved, shards = _read_state(folder), folder / SHARDS
    arrays, sharded = saved.arrays, shards.is_dir()
    found_shapes = shard_shapes(shards) if sharded else whole_shapes(folder, _REMEDY)
    if found_shapes != shapes(model_tensors(model)):
        raise UserError(
            f"{folder}: The saved tensors are not those of this model. "
            "Restore the model's settings, or change out."
        )
    for kind, found, expected in (
        ("leaves", arrays["used"], fresh.used),
        ("basis members", arrays["mixer.sampling"], fresh.mixer.sampling),
    ):
        if found.shape != expected.shape:
            raise UserError(
                f"{folder}: The checkpoint has {len(found)} {kind}, but this run has "
                f"{len(expected)}. Restore the settings, or change out."
            )
    if sharded:
        load_shards(shards, model, optimizer, fetch)
    else:
        load_whole(folder, model, optimizer, _REMEDY)
    return restored_state(saved)


def state_parts(state: State) -> Saved:
    """Return a copy of a state in the parts that checkpoints store."""
    about: dict[str, Any] = {}
    arrays = {f"mixer.memory.{name}": array for name, array in state.mixer.memory.items()}
    arrays |= {"mixer.log_alpha": state.mixer.log_alpha, "mixer.sampling": state.mixer.sampling}
    for state_field in fields(state):
        key, value = _key(state_field), getattr(state, state_field.name)
        if state_field.type in (int, float):
            about[key] = state_field.type(value)
        elif isinstance(value, np.ndarray):
            arrays[key] = value
        elif key not in ("mixer", "log"):
            raise TypeError(f"State.{state_field.name}: expected an int, a float or an array")
    return Saved(about, {name: array.copy() for name, array in arrays.items()}, list(state.log))


def restored_state(saved: Saved) -> State:
    """Return the state of which these are the parts."""
    arrays = saved.arrays
    memory = {
        name.removeprefix("mixer.memory."): array
        for name, array in arrays.items()
        if name.startswith("mixer.memory.")
    }
    mixer = MixerState(arrays["mixer.log_alpha"], arrays["mixer.sampling"], memory)
    values = {**saved.about, **arrays}
    restored = {f.name: values[_key(f)] for f in fields(State) if _key(f) in values}
    return State(mixer=mixer, log=saved.log, **restored)


def _key(state_field: Field[Any]) -> str:
    """Return the name of a field of `State` in a checkpoint's files."""
    return str(state_field.metadata.get("key", state_field.name))
