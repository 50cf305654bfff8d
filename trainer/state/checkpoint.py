"""Checkpoints: the state of a run, from which a stopped run resumes bit for bit."""

import json
import os
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import Field, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from jaxtyping import Float, Int
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from data_catalog.disk import describe_disk_failure
from data_catalog.errors import UserError
from data_catalog.format.damage import reading
from data_catalog.format.manifest import write_json
from data_catalog.format.run_files import write_checksums
from data_catalog.format.tables import WEIGHTS
from data_catalog.temporary import remove_at_once, remove_unfinished, replacing
from trainer.config import Checkpoint
from trainer.mixers import MixerState
from trainer.state.checksums import CHECKSUMS_KEY, STATE, checkpoints
from trainer.state.full_state_dict import (
    OptimizerState,
    load_model,
    load_optimizer,
    model_tensors,
    optimizer_state,
    shapes,
)

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
class Snapshot:
    """Copy of everything that a checkpoint holds. Training can continue while it is written."""

    step: int
    about: Mapping[str, Any]
    """Content of state.json: the scalars and the identity of the run."""
    arrays: Mapping[str, np.ndarray]
    log: list[dict[str, Any]]
    model: dict[str, Tensor]
    optimizer: OptimizerState


class CheckpointWriter:
    """Writer of `out/checkpoints/STEP/`, one at a time, in a thread if `settings.asynchronous`.

    All processes create a writer and call it together; the leader writes.
    """

    def __init__(self, out: Path, settings: Checkpoint, is_leader: bool) -> None:
        """Prepare to write, and remove the unfinished files of killed processes."""
        self._out, self._settings, self._is_leader = out, settings, is_leader
        self._thread = ThreadPoolExecutor(1) if settings.asynchronous and is_leader else None
        self._writing: Future[None] | None = None
        if is_leader:
            remove_unfinished((out, out / "checkpoints"))

    def save(
        self,
        state: State,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        identity: Mapping[str, str],
    ) -> None:
        """Copy the current state and write it, or start writing it.

        Args:
            state: the state of the run.
            model: the plain model.
            optimizer: its optimizer.
            identity: fingerprints of the config, the catalog and the tokenizer.

        Raises:
            UserError: This checkpoint, or the previous one if it was still being written, could not
                be written.
        """
        self._wait()  # Wait before copying, so that at most one copy is in memory.
        snapshot = take_snapshot(state, model, optimizer, identity)
        if self._thread is not None:
            self._writing = self._thread.submit(self._write, snapshot)
        elif self._is_leader:
            self._write(snapshot)

    def close(self) -> None:
        """Wait until the last checkpoint is on disk. Calling this twice is harmless.

        Raises:
            UserError: The checkpoint could not be written.
        """
        if self._thread is not None:
            self._thread.shutdown()
        self._wait()

    def _wait(self) -> None:
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def _write(self, snapshot: Snapshot) -> None:
        try:
            write_snapshot(self._out, snapshot)
            _remove_old(self._out, self._settings)
        except OSError as error:
            saved = checkpoints(self._out)
            last = f"that of step {int(saved[-1].name)}" if saved else "none"
            raise UserError(
                f"{describe_disk_failure(error) or error} The checkpoint of step {snapshot.step} "
                f"was not written. The last complete checkpoint is {last}."
            ) from error


def take_snapshot(
    state: State, model: nn.Module, optimizer: torch.optim.Optimizer, identity: Mapping[str, str]
) -> Snapshot:
    """Copy everything to CPU memory.

    All processes call this together. Only the leader's snapshot holds tensors.
    """
    arrays = {f"mixer.memory.{name}": array for name, array in state.mixer.memory.items()}
    arrays |= {"mixer.log_alpha": state.mixer.log_alpha, "mixer.sampling": state.mixer.sampling}
    about: dict[str, Any] = dict(identity)
    for state_field in fields(state):
        key, value = _key(state_field), getattr(state, state_field.name)
        if state_field.type in (int, float):
            about[key] = state_field.type(value)
        elif isinstance(value, np.ndarray):
            arrays[key] = value
        elif key not in ("mixer", "log"):
            raise TypeError(f"State.{state_field.name}: expected an int, a float or an array")
    copies = {name: array.copy() for name, array in arrays.items()}
    return Snapshot(
        state.step,
        about,
        copies,
        list(state.log),
        model_tensors(model),
        optimizer_state(model, optimizer),
    )


def write_snapshot(out: Path, snapshot: Snapshot) -> None:
    """Write `out/checkpoints/STEP/`. The folder is renamed to this only when it is on disk."""
    folder = out / "checkpoints" / f"{snapshot.step:010d}"
    with replacing(folder) as temporary:
        temporary.mkdir()
        save_file(snapshot.model, temporary / "model.safetensors")
        # Given an open file instead of a path, torch.save's error has the OSError as its context.
        with (temporary / "optimizer.pt").open("wb") as file:
            torch.save(snapshot.optimizer, file)
        write_log(temporary / "weights.parquet", snapshot.log)
        np.savez(temporary / "arrays.npz", allow_pickle=False, **snapshot.arrays)
        write_json(temporary / STATE, {**snapshot.about, CHECKSUMS_KEY: True})
        write_checksums(temporary, temporary.iterdir())
        for path in (*temporary.iterdir(), temporary):
            _sync_to_disk(path)
    _sync_to_disk(folder.parent)


def write_log(path: Path, log: list[dict[str, Any]]) -> None:
    """Write the weight log, replacing the file atomically."""
    with replacing(path) as temporary:
        pq.write_table(pa.Table.from_pylist(log, schema=WEIGHTS), temporary)


@dataclass(frozen=True)
class Saved:
    """The contents of a checkpoint's files."""

    folder: Path
    about: Mapping[str, Any]
    arrays: Mapping[str, np.ndarray]
    log: list[dict[str, Any]]
    model: dict[str, Tensor]
    optimizer: OptimizerState


def read_checkpoint(folder: Path) -> Saved:
    """Read every file of a checkpoint.

    Raises:
        DamagedFileError: A file is missing or cannot be read, or an array is missing.
    """
    with reading(folder / "model.safetensors", _REMEDY):
        model = load_file(folder / "model.safetensors")
    with (
        reading(folder / "arrays.npz", _REMEDY),
        np.load(folder / "arrays.npz", allow_pickle=False) as file,
    ):
        arrays = dict(file)
        _ = (arrays["used"], arrays["mixer.log_alpha"], arrays["mixer.sampling"])
    with reading(folder / "optimizer.pt", _REMEDY):
        optimizer = torch.load(
            folder / "optimizer.pt", map_location="cpu", mmap=True, weights_only=True
        )
    with reading(folder / STATE, _REMEDY):
        about = {**json.loads((folder / STATE).read_bytes())}
    with reading(folder / "weights.parquet", _REMEDY):
        log = pq.read_table(folder / "weights.parquet", schema=WEIGHTS).to_pylist()
    return Saved(folder, about, arrays, log, model, optimizer)


def load_checkpoint(
    folder: Path, fresh: State, model: nn.Module, optimizer: torch.optim.Optimizer
) -> State:
    """Load a checkpoint into `model` and `optimizer`, sharded or not, and return its state.

    Every process reads the whole checkpoint.

    Args:
        folder: the checkpoint's folder.
        fresh: the state that this run would start with.
        model: the plain model.
        optimizer: its optimizer.

    Raises:
        UserError: The checkpoint belongs to another model, basis or cluster tree, or is damaged.
    """
    saved = read_checkpoint(folder)
    arrays = saved.arrays
    if {name: tuple(tensor.shape) for name, tensor in saved.model.items()} != shapes(model):
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
    load_model(model, saved.model)
    load_optimizer(model, optimizer, saved.optimizer)
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


def _remove_old(out: Path, settings: Checkpoint) -> None:
    for old in checkpoints(out)[: -settings.keep]:
        if settings.keep_every_steps and int(old.name) % settings.keep_every_steps == 0:
            continue
        remove_at_once(old)  # a partly removed checkpoint must not look complete


def _sync_to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
