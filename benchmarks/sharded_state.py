"""Measure the memory and time that a sharded model needs to start, to save and to resume.

Each of the processes, which communicate by gloo, reports the growth of its peak memory (VmHWM) over
its memory at the begin of each phase:

* build whole: every process builds the whole model, and FSDP2 shards it.
* build: the model is born sharded.
* copy: the state is copied, which training waits for.
* write: the copies are written, with checksums and fsync. Training does not wait for this.
* resume: the checkpoint is loaded into new shards.
"""

import argparse
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from benchmarks.hardware import headline, today
from trainer.config import Checkpoint, Model, Optimizer, Training
from trainer.distributed import Team
from trainer.mixers import MixerState
from trainer.model.born_sharded import Shards
from trainer.model.engine import Engine, build_engine
from trainer.model.model import build_model
from trainer.model.optimizer import build_optimizer
from trainer.state.checkpoint import State, load_checkpoint
from trainer.state.checkpoint_writer import CheckpointWriter
from trainer.state.checksums import checkpoints

MEBIBYTE = 2**20
PHASES = ("build whole", "build", "copy", "write", "resume")
IDENTITY = {"fingerprint": "a", "catalog": "b", "tokenizer": "c"}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--hidden", type=int, default=512)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--vocabulary", type=int, default=32_000)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    arguments = parser.parse_args()
    rows: dict[str, list[tuple[float, float]]] = {}
    sizes = (arguments.hidden, arguments.layers, arguments.vocabulary)
    with TemporaryDirectory() as folder:
        for phases in (["build whole"], list(PHASES[1:])):
            name = phases[0].replace(" ", "-")
            mp.spawn(measure, (Path(folder), name, sizes, arguments.processes), arguments.processes)
            for phase in phases:
                rows[phase] = [
                    torch.load(Path(folder) / f"{name}-{rank}.pt")[phase]
                    for rank in range(arguments.processes)
                ]
        parameters = torch.load(Path(folder) / "build-0.pt")["parameters"]
    text = report(rows, parameters, arguments.processes)
    (arguments.out / f"{today()}-sharded-state.md").write_text(text, encoding="utf-8")
    print(text)


def measure(rank: int, folder: Path, name: str, sizes: tuple[int, int, int], world: int) -> None:
    """Save this process's peak in bytes and time in seconds of each phase."""
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/meet-{name}", rank=rank, world_size=world
    )
    team, found = Team(rank, world), {}
    with phase(found, name.replace("-", " ")):
        engine = build(sizes, team, born_sharded=name == "build")
    found["parameters"] = sum(p.numel() for p in engine.model.parameters())  # type: ignore[assignment]
    if name == "build":
        optimizer = build_optimizer(engine.model, Optimizer())
        for parameter in engine.model.parameters():
            parameter.grad = torch.ones_like(parameter)
        optimizer.step()
        engine.clear()
        writer = CheckpointWriter(folder, Checkpoint(), team)
        with phase(found, "copy"):
            writer.save(state(), engine.model, optimizer, IDENTITY)
        with phase(found, "write"):
            writer.close()
        del optimizer, engine
        engine = build(sizes, team, born_sharded=True)
        optimizer = build_optimizer(engine.model, Optimizer())
        with phase(found, "resume"):
            load_checkpoint(checkpoints(folder)[-1], state(), engine.model, optimizer)
    torch.save(found, folder / f"{name}-{rank}.pt")
    dist.barrier()
    if rank == 0:
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    os._exit(0)  # destructors of torch's communication objects can deadlock


def build(sizes: tuple[int, int, int], team: Team, *, born_sharded: bool) -> Engine:
    """Return an engine with FSDP2."""
    hidden, layers, vocabulary = sizes
    config = Model(hidden_size=hidden, layers=layers, heads=hidden // 64)
    shards = Shards(team.rank, team.world) if born_sharded else None
    model = build_model(config, vocabulary, 0, 512, 0, shards)
    return build_engine(model, Training(parallel="fsdp2"), team, shards)


def state() -> State:
    """Return a state of a run with few domains."""
    mixer = MixerState(np.zeros(2), np.full(2, 0.5), {})
    return State(mixer, np.zeros(2, np.int64), step=1)


@contextmanager
def phase(found: dict[str, tuple[float, float]], name: str) -> Iterator[None]:
    """Record the growth of the peak memory in bytes, and the seconds, of this block."""
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    before, begun = memory("VmRSS"), perf_counter()
    yield
    found[name] = memory("VmHWM") - before, perf_counter() - begun


def memory(key: str) -> int:
    """Return a number of bytes from /proc/self/status."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key)) * 1024


def report(rows: dict[str, list[tuple[float, float]]], parameters: int, world: int) -> str:
    """Return the result as Markdown."""
    columns = " | ".join(f"process {rank}" for rank in range(world))
    lines = [
        "# Memory and time of a sharded model's state",
        headline(),
        f"Llama, {parameters:,} parameters ({4 * parameters / MEBIBYTE:,.0f} MiB in float32), "
        f"AdamW, FSDP2 on {world} processes with gloo on the CPU. Growth of the peak memory of "
        "each process in MiB and in bytes per parameter, and seconds.",
        f"| phase | {columns} |\n|---|{'---|' * world}",
    ]
    table = [
        f"| {name} | "
        + " | ".join(
            f"{peak / MEBIBYTE:,.0f} MiB, {peak / parameters:.1f} B, {seconds:.2f} s"
            for peak, seconds in measured
        )
        + " |"
        for name, measured in rows.items()
    ]
    return "\n\n".join(lines[:-1]) + "\n\n" + "\n".join([lines[-1], *table]) + "\n"


if __name__ == "__main__":
    main()
