"""The state of a run: what is kept, and how a run that was stopped goes on, bit for bit."""

import json
import os
import shutil
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from jaxtyping import Float, Int
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from data_catalog.errors import UserError
from data_catalog.format.manifest import replacing, write_json
from data_catalog.format.tables import WEIGHTS
from trainer.config import Checkpoint
from trainer.mixers import MixerState
from trainer.state.full_state_dict import (
    OptimizerState,
    load_model,
    load_optimizer,
    model_tensors,
    optimizer_state,
    shapes,
)


@dataclass
class State:
    """Everything that a step changes, apart from the model and the optimizer.

    A further field is kept and restored if it is an int, a float or an array; it needs a default for older checkpoints.
    """

    mixer: MixerState
    used: Int[np.ndarray, " leaves"]  # draws of each leaf in all finished stages
    log: list[dict[str, Any]] = field(default_factory=list)  # rows of tables.WEIGHTS, one a stage
    heard: Float[np.ndarray, " numbers"] = field(
        default_factory=lambda: np.zeros(0)
    )  # `Measured.flat` of a stage's last step, until used
    step: int = 0  # steps done
    tokens: int = 0  # labels trained on
    seconds: float = 0.0
    data_seconds: float = 0.0  # waited for batches
    scoring_seconds: float = 0.0
    metrics_bytes: int = 0


@dataclass(frozen=True)
class Snapshot:
    """What one checkpoint holds, all of it copied: training may go on while it is written."""

    step: int
    about: Mapping[str, Any]  # state.json: the scalars, and whose run this is
    arrays: Mapping[str, np.ndarray]
    log: list[dict[str, Any]]
    model: dict[str, Tensor]
    optimizer: OptimizerState


class CheckpointWriter:
    """Writes `out/checkpoints/STEP/`; one at a time, by a thread if `settings.asynchronous`.

    All processes make one and call it together; the leading one writes.
    """

    def __init__(self, out: Path, settings: Checkpoint, leads: bool) -> None:
        self._out, self._settings, self._leads = out, settings, leads
        self._thread = ThreadPoolExecutor(1) if settings.asynchronous and leads else None
        self._writing: Future[None] | None = None
        if leads:
            _sweep(out)

    def save(
        self,
        state: State,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        identity: Mapping[str, str],
    ) -> None:
        """Copy everything as it is now, and write it or have it written.

        Raises:
            UserError: this checkpoint, or the one before if it was still being written, could not be.
        """
        self._wait()  # before the copy is made: never more than one in memory
        snapshot = take_snapshot(state, model, optimizer, identity)
        if self._thread is not None:
            self._writing = self._thread.submit(self._write, snapshot)
        elif self._leads:
            self._write(snapshot)

    def close(self) -> None:
        """Wait until the last checkpoint is on disk. Harmless when called twice.

        Raises:
            UserError: it could not be written.
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
        except (OSError, SafetensorError) as error:
            found = checkpoints(self._out)
            rest = (
                f"it goes on from that of step {int(found[-1].name)}"
                if found
                else "there is none yet"
            )
            raise UserError(
                f"{self._out}: the checkpoint of step {snapshot.step} could not be written ({error}); make room and start again: {rest}"
            ) from error


def take_snapshot(
    state: State, model: nn.Module, optimizer: torch.optim.Optimizer, identity: Mapping[str, str]
) -> Snapshot:
    """Copy everything to CPU memory. All processes call this together; tensors are there on the leading one alone."""
    arrays = {f"mixer.memory.{name}": array for name, array in state.mixer.memory.items()}
    arrays |= {"mixer.log_alpha": state.mixer.log_alpha, "mixer.sampling": state.mixer.sampling}
    about: dict[str, Any] = dict(identity)
    for kept in fields(state):
        value = getattr(state, kept.name)
        if kept.type in (int, float):
            about[kept.name] = kept.type(value)
        elif isinstance(value, np.ndarray):
            arrays[kept.name] = value
        elif kept.name not in ("mixer", "log"):
            raise TypeError(f"State.{kept.name}: a checkpoint keeps int, float and arrays")
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
    """Write `out/checkpoints/STEP/`: under its name only once all of it is safely on disk."""
    folder = out / "checkpoints" / f"{snapshot.step:010d}"
    with replacing(folder) as temporary:
        temporary.mkdir()
        save_file(snapshot.model, temporary / "model.safetensors")
        with (temporary / "optimizer.pt").open(
            "wb"
        ) as file:  # not by its path: what fails is then an OSError
            torch.save(snapshot.optimizer, file)
        write_log(temporary / "weights.parquet", snapshot.log)
        np.savez(temporary / "arrays.npz", allow_pickle=False, **snapshot.arrays)
        write_json(temporary / "state.json", snapshot.about)
        for path in (*temporary.iterdir(), temporary):
            _to_disk(path)
    _to_disk(folder.parent)


def write_log(path: Path, log: list[dict[str, Any]]) -> None:
    """Write the weight log, replacing the file at once."""
    with replacing(path) as temporary:
        pq.write_table(pa.Table.from_pylist(log, schema=WEIGHTS), temporary)


def load_checkpoint(
    folder: Path, fresh: State, model: nn.Module, optimizer: torch.optim.Optimizer
) -> State:
    """Put a checkpoint's tensors into `model` and `optimizer`, sharded or not, and return its state. Every process reads all of it.

    Args:
        fresh: the state that this run would begin with.

    Raises:
        UserError: it is of another model, basis or tree.
    """
    tensors = load_file(folder / "model.safetensors")
    if {name: tuple(tensor.shape) for name, tensor in tensors.items()} != shapes(model):
        raise UserError(
            f"{folder}: its tensors are not those of this model; put the model's settings back, or start in another out"
        )
    with np.load(folder / "arrays.npz", allow_pickle=False) as file:
        arrays = dict(file)
    for what, found, expected in (
        ("leaves", arrays["used"], fresh.used),
        ("basis members", arrays["mixer.sampling"], fresh.mixer.sampling),
    ):
        if found.shape != expected.shape:
            raise UserError(
                f"{folder}: is of {len(found)} {what}, this run has {len(expected)}; put back what changed, or choose another out"
            )
    load_model(model, tensors)
    load_optimizer(
        model,
        optimizer,
        torch.load(folder / "optimizer.pt", map_location="cpu", mmap=True, weights_only=True),
    )
    about = json.loads((folder / "state.json").read_text(encoding="utf-8"))
    memory = {
        name.removeprefix("mixer.memory."): array
        for name, array in arrays.items()
        if name.startswith("mixer.memory.")
    }
    mixer = MixerState(arrays["mixer.log_alpha"], arrays["mixer.sampling"], memory)
    log = pq.read_table(folder / "weights.parquet").to_pylist()
    kept = {
        f.name: found[f.name] for f in fields(State) for found in (about, arrays) if f.name in found
    }
    return State(mixer=mixer, log=log, **kept)


def checkpoints(out: Path) -> list[Path]:
    """Finished checkpoints, oldest first."""
    return sorted(path.parent for path in (out / "checkpoints").glob("[0-9]*/state.json"))


def _remove_old(out: Path, settings: Checkpoint) -> None:
    for old in checkpoints(out)[: -settings.keep]:
        if settings.keep_every_steps and int(old.name) % settings.keep_every_steps == 0:
            continue
        leaving = old.with_name(
            f".{old.name}.tmp"
        )  # at once: half of one must not look like a whole one
        old.rename(leaving)
        shutil.rmtree(leaving)


def _sweep(out: Path) -> None:
    """Remove what processes that were killed were writing."""
    for unfinished in (*out.glob(".*.tmp"), *(out / "checkpoints").glob(".*.tmp")):
        if unfinished.is_dir():
            shutil.rmtree(unfinished)
        else:
            unfinished.unlink()


def _to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
