"""Training steps and scores for benchmarks: a model, a catalog, members to score, and time and memory of whatever runs."""

import argparse
import ctypes
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter

import numpy as np
import torch

from data_catalog.format.distributions import Basis
from data_catalog.format.manifest import read_manifest
from trainer.alignment import Alignment, Direction
from trainer.alignment.direction import target_direction
from trainer.alignment.measure import (
    ScoredSequences,
    SequenceBackend,
    backward_and_score,
    batch_alignment,
    measure_alignment,
)
from trainer.config import Mixture, Train
from trainer.distributed import Team
from trainer.inputs import Inputs, open_inputs
from trainer.model.engine import Engine, build_engine
from trainer.model.model import build_model
from trainer.model.optimizer import build_optimizer
from trainer.sampling.basis import build_basis
from trainer.sampling.batches import Batch


@dataclass
class ScoredTraining:
    """A model that has been trained for a while, and what is drawn for it."""

    config: Train
    inputs: Inputs
    engine: Engine
    optimizer: torch.optim.Optimizer
    random: np.random.Generator

    def step(
        self, backend: SequenceBackend | None = None, direction: Direction | None = None
    ) -> list[ScoredSequences]:
        """A training step; with a backend, its batch is scored on the way."""
        self.engine.clear()
        leaves, batch = self.draw()
        scored = []
        if backend is None or direction is None:
            self.engine.backward(batch)
        else:
            scored.append(backward_and_score(self.engine, direction, batch, leaves, backend)[1])
        self.engine.clip(1.0)
        self.optimizer.step()
        return scored

    def draw(self) -> tuple[np.ndarray, Batch]:
        leaves, rows = self.inputs.corpus.draw(
            self.density, self.config.training.batch_sequences, self.random
        )
        return leaves, self.inputs.corpus.read(leaves, rows)

    @property
    def density(self) -> np.ndarray:
        """An even mixture of the members: that of a run's first stage."""
        return self.inputs.basis.matrix.mean(axis=0)

    def direction(self, stage: int) -> Direction:
        return target_direction(
            self.engine, lambda: self.inputs.objective.backward(self.engine, stage)
        )

    def probes(
        self, backend: str, scores: str, sequences: int, direction: Direction, stage: int
    ) -> Alignment:
        changed = {"backend": backend, "scores": scores, "basis_sequences": sequences}
        config = self.config.model_copy(
            update={"mixture": self.config.mixture.model_copy(update=changed)}
        )
        return measure_alignment(self.engine, direction, config, self.inputs, stage)

    def on_batches(self, scored: list[ScoredSequences]) -> Alignment:
        return batch_alignment(self.engine.team, self.inputs.basis.matrix, self.density, scored)

    def with_basis(self, basis: Basis) -> "ScoredTraining":
        return replace(self, inputs=replace(self.inputs, basis=basis))


def prepare(root: Path, arguments: argparse.Namespace) -> ScoredTraining:
    manifest = read_manifest(root)
    training = {
        "batch_sequences": arguments.batch,
        "micro_batch_sequences": arguments.micro,
        "sequence_tokens": arguments.tokens,
        "precision": arguments.precision,
    }
    config = Train.model_validate(
        {
            "catalog": root,
            "out": root,
            "target": arguments.target or sorted(manifest.targets)[0],
            "model": {"preset": arguments.preset},
            "mixture": {
                "basis_sequences": arguments.basis_sequences,
                "target_sequences": arguments.target_sequences,
            },
            "training": training,
        }
    )
    inputs = open_inputs(config)
    device = torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    model = build_model(
        config.model, inputs.vocabulary, inputs.files.end_of_text, arguments.tokens, 0
    )
    engine = build_engine(model, config.training, Team(device=device))
    optimizer = build_optimizer(model, config.optimizer)
    bench = ScoredTraining(
        config, inputs, engine, optimizer, np.random.Generator(np.random.Philox(key=1))
    )
    for _ in range(arguments.trained):
        bench.step()
    return bench


def members(bench: ScoredTraining, level: int, count: int) -> Basis:
    """The catalog's distributions at a level, then its coarsest domains, until there are `count`."""
    files, sequences = bench.inputs.files, bench.inputs.corpus.sequences
    levels = files.levels
    named = build_basis(files, Mixture(level=level), bench.config.target, sequences)
    domains = build_basis(
        files,
        Mixture(level=levels.granularities[0], basis="domains"),
        bench.config.target,
        sequences,
    )
    names, matrix = (*named.names, *domains.names), np.concatenate([named.matrix, domains.matrix])
    return Basis(names[:count], matrix[:count])


def void(_: object) -> None:
    """Drop a result, and with it the memory."""


def timed(run: Callable[[], None], device: torch.device) -> tuple[float, float]:
    """Seconds, and megabytes at the peak beyond what there was before."""
    if device.type == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    else:
        ctypes.CDLL("libc.so.6").malloc_trim(
            0
        )  # what was freed is given back, so that it counts again
        Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts anew
        before = kilobytes("VmRSS") * 1024
    started = perf_counter()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize()
    seconds = perf_counter() - started
    peak = torch.cuda.max_memory_allocated() if device.type == "cuda" else kilobytes("VmHWM") * 1024
    return seconds, (peak - before) / 1e6


def kilobytes(name: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))
