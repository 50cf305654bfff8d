"""Training steps and alignment scores for benchmarks, and the measurement of time and memory."""

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
from trainer.config import Train
from trainer.distributed import Team
from trainer.inputs import Inputs, open_inputs
from trainer.mixture_config import Mixture
from trainer.model.engine import Engine, build_engine
from trainer.model.model import build_model
from trainer.model.optimizer import build_optimizer
from trainer.sampling.basis import build_basis
from trainer.sampling.batches import Batch


@dataclass
class ScoredTraining:
    """A partly trained model with its optimizer, its inputs and a random generator."""

    config: Train
    inputs: Inputs
    engine: Engine
    optimizer: torch.optim.Optimizer
    random: np.random.Generator

    def step(
        self, backend: SequenceBackend | None = None, direction: Direction | None = None
    ) -> list[ScoredSequences]:
        """Run a training step. With a backend and a direction, also score its batch."""
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
        """Draw a training batch, and return the leaves of its sequences with it."""
        leaves, rows = self.inputs.corpus.draw(
            self.inputs.fill.draws(self.density),
            self.config.training.batch_sequences,
            self.random,
        )
        return leaves, self.inputs.corpus.read(leaves, rows)

    @property
    def density(self) -> np.ndarray:
        """The even mixture of the members, as in the first interval of a run."""
        return self.inputs.basis.matrix.mean(axis=0)

    def direction(self, stage: int) -> Direction:
        """Return the gradient direction of the target."""
        return target_direction(
            self.engine, lambda: self.inputs.objective.backward(self.engine, stage)
        )

    def probes(
        self, backend: str, scores: str, sequences: int, direction: Direction, stage: int
    ) -> Alignment:
        """Return the alignment of the members, measured on probe sequences."""
        changed = {"backend": backend, "scores": scores, "basis_sequences": sequences}
        config = self.config.model_copy(
            update={"mixture": self.config.mixture.model_copy(update=changed)}
        )
        return measure_alignment(self.engine, direction, config, self.inputs, stage)

    def on_batches(self, scored: list[ScoredSequences]) -> Alignment:
        """Return the alignment of the members, measured on scored training batches."""
        return batch_alignment(self.engine.team, self.inputs.basis.matrix, self.density, scored)

    def with_basis(self, basis: Basis) -> "ScoredTraining":
        """Return a copy that scores the members of `basis`."""
        return replace(self, inputs=replace(self.inputs, basis=basis))


def prepare(root: Path, arguments: argparse.Namespace) -> ScoredTraining:
    """Build a model on the catalog at `root` and train it for `arguments.trained` steps."""
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
            "out": root / "run",  # never made
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
    """Return the first `count` of the distributions of a level and then the coarsest domains."""
    inputs, target, draws = bench.inputs, bench.config.target, bench.config.training.draws
    files, sequences, levels = inputs.files, inputs.corpus.sequences, inputs.files.levels
    named = build_basis(files, Mixture(level=level), target, sequences, inputs.fill, draws)
    domains = build_basis(
        files,
        Mixture(level=levels.granularities[0], basis="domains"),
        target,
        sequences,
        inputs.fill,
        draws,
    )
    names, matrix = (*named.names, *domains.names), np.concatenate([named.matrix, domains.matrix])
    return Basis(names[:count], matrix[:count])


def void(_: object) -> None:
    """Discard a result, which frees its memory."""


def timed(run: Callable[[], None], device: torch.device) -> tuple[float, float]:
    """Return the seconds of a call, and its peak memory above the start in megabytes."""
    if device.type == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    else:
        # Return freed memory to the system, so that it is counted when it is used again.
        ctypes.CDLL("libc.so.6").malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")  # resets the high-water mark
        before = kilobytes("VmRSS") * 1024
    started = perf_counter()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize()
    seconds = perf_counter() - started
    peak = torch.cuda.max_memory_allocated() if device.type == "cuda" else kilobytes("VmHWM") * 1024
    return seconds, (peak - before) / 1e6


def kilobytes(name: str) -> int:
    """Return a memory figure of this process by its name in /proc/self/status."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))
