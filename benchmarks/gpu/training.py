"""Training steps of several models: tokens per second, MFU and memory."""

import gc
import math
from dataclasses import dataclass
from statistics import median
from time import perf_counter
from typing import Any

import torch

from benchmarks.gpu.rows import Part
from data_catalog.errors import first_line
from trainer.config import Model, Optimizer, Training
from trainer.distributed import Team
from trainer.model.engine import build_engine
from trainer.model.flops import peak_flops, utilisation
from trainer.model.model import build_model
from trainer.model.optimizer import build_optimizer
from trainer.sampling.batches import Batch

MODEL_15M = {"layers": 7, "hidden_size": 384, "heads": 6}  # with a vocabulary of 8,192
UNTIMED, LEAST_STEPS = 3, 5


@dataclass(frozen=True)
class Case:
    name: str
    model: dict[str, Any]
    vocabulary: int
    batch: int
    """Sequences per step."""
    micro: int
    """Sequences per forward pass."""
    tokens: int
    """Tokens per sequence."""


CASES = {
    "cpu": (
        Case("tiny", {"layers": 1, "hidden_size": 64, "heads": 2}, 512, 4, 2, 32),
        Case("tiny, two layers", {"layers": 2, "hidden_size": 64, "heads": 2}, 512, 4, 2, 32),
    ),
    "gpu": (
        Case("15M", MODEL_15M, 8_192, 128, 64, 1_024),
        Case("125M", {"preset": "125m"}, 50_304, 64, 32, 1_024),
        Case("350M", {"preset": "350m"}, 50_304, 32, 16, 1_024),
    ),
}


def device_of_this_process() -> torch.device:
    """Return the device that a run in this process would use."""
    return torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")


def run(part: Part) -> None:
    cases = CASES[part.scale]
    for number, case in enumerate(cases):
        until = part.seconds_left() * (1 - 1 / (len(cases) - number + 0.5))
        compiled = part.scale == "gpu"  # the compiler takes longer than a tiny model saves
        micro = case.micro
        while True:
            try:
                _measure(part, case, micro, compiled, until)
            except torch.OutOfMemoryError as error:
                reason = f"out of memory with {micro} sequences per pass: {first_line(error)}"
                micro //= 2
                again = micro > 0
            except Exception as error:  # the other sizes are measured all the same
                reason = f"FAILED: {type(error).__name__}: {first_line(error)}"
                again, compiled = compiled, False
            else:
                break
            part.record(f"{case.name}{', compiled' if compiled else ''}", reason)
            gc.collect()
            torch.cuda.empty_cache()
            if not again:
                break


def _measure(part: Part, case: Case, micro: int, compiled: bool, until: float) -> None:
    """Record the row of a model. Steps end when `until` seconds of the part are left."""
    device = device_of_this_process()
    training = Training(
        batch_sequences=case.batch,
        micro_batch_sequences=micro,
        sequence_tokens=case.tokens,
        precision="bfloat16",
        compile=compiled,
    )
    model = build_model(Model(**case.model), case.vocabulary, 0, case.tokens, 0)
    engine = build_engine(model, training, Team(device=device))
    optimizer = build_optimizer(model, Optimizer())
    generator = torch.Generator().manual_seed(1)
    size = (case.batch, case.tokens + 1)
    texts = [torch.randint(case.vocabulary, size, generator=generator) for _ in range(4)]
    batches = [Batch(text[:, :-1], text[:, 1:], case.batch * case.tokens) for text in texts]

    losses: list[torch.Tensor] = []  # of the last step

    def step(number: int) -> float:
        begun = perf_counter()
        engine.clear()
        losses[:] = engine.backward(batches[number % len(batches)], balanced=True)[:1]
        engine.clip(1.0)
        optimizer.step()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return perf_counter() - begun

    warm = sum(step(number) for number in range(UNTIMED))
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    seconds: list[float] = []
    most = 100 if part.scale == "gpu" else LEAST_STEPS
    while len(seconds) < LEAST_STEPS or (part.seconds_left() > until and len(seconds) < most):
        seconds.append(step(len(seconds)))
    rate = case.batch * case.tokens / median(seconds)
    values: dict[str, float] = {"tokens_per_s": rate, "ms_per_step": 1000 * median(seconds)}
    used = utilisation(model, case.tokens, rate, device, 1)
    if used is not None:
        values["MFU"] = used
    if device.type == "cuda":
        values["peak_GiB"] = torch.cuda.max_memory_allocated() / 2**30
    if not math.isfinite(float(losses[0])):
        raise FloatingPointError(f"the loss is {float(losses[0])}")
    unknown = device.type == "cuda" and peak_flops(device) is None
    part.record(
        f"{case.name}{', compiled' if compiled else ''}",
        f"{sum(p.numel() for p in model.parameters()):,} parameters, bfloat16, {case.batch} x "
        f"{case.tokens} tokens per step, {micro} sequences per pass, median of {len(seconds)} "
        f"steps; the first {UNTIMED} took {warm:.0f} s"
        + ("; the peak of this GPU is unknown" if unknown else ""),
        **values,
    )
