"""Whole trainings: mixtures with shares of the target's distribution, and DGA, for several seeds.

Each has the share lambda of the target's own distribution, and `natural` has the rest. The table
has as many of the runs as the time suffices for. The corpus is synthetic, so that the losses show
whether runs behave on a GPU as on a processor, and not which mixture is best.
"""

import json
import logging
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from time import perf_counter
from typing import Any

from benchmarks.gpu.catalog import TARGETS, write_catalog
from benchmarks.gpu.rows import Part
from benchmarks.gpu.training import MODEL_15M
from trainer.config import Train
from trainer.loop import train

LAMBDAS = (0.0, 0.25, 0.5, 0.75, 0.9, 1.0)
MIXTURES: dict[str, dict[str, Any]] = {
    **{f"lambda = {share:g}": {"mixer": "static", "target_share": share} for share in LAMBDAS},
    "DGA": {"mixer": "dga"},
}
SEEDS = 6  # with 7 mixtures, 42 runs
MARGIN = 1.3  # a run starts only if this multiple of the slowest run so far is left


@dataclass(frozen=True)
class Sizes:
    model: dict[str, Any]
    training: dict[str, Any]
    learning_rate: float
    seeds: int


SIZES = {
    "cpu": Sizes(
        {"layers": 1, "hidden_size": 32, "heads": 2},
        {"steps": 12, "batch_sequences": 8, "sequence_tokens": 32},
        1e-2,
        1,
    ),
    "gpu": Sizes(
        MODEL_15M,
        {
            "steps": 150,
            "batch_sequences": 64,
            "sequence_tokens": 512,
            "precision": "bfloat16",
        },
        1e-3,
        SEEDS,
    ),
}


def run(part: Part) -> None:
    logging.basicConfig(format="%(levelname)s %(message)s")
    sizes = SIZES[part.scale]
    catalog = write_catalog(part.scratch / "catalog", part.scale)
    losses: dict[str, list[float]] = defaultdict(list)
    rates: dict[str, list[float]] = defaultdict(list)
    slowest, done = 0.0, 0
    for seed in range(sizes.seeds):
        for name, mixture in MIXTURES.items():
            if slowest * MARGIN > part.seconds_left():
                continue
            begun = perf_counter()
            out = part.scratch / f"{name.replace(' ', '')}-{seed}"
            train(run_config(sizes, catalog, out, seed, mixture), verify=False)
            loss, rate = result_of(out)
            seconds = perf_counter() - begun
            slowest, done = max(slowest, seconds), done + 1
            losses[name].append(loss)
            rates[name].append(rate)
            note = f"seed {seed}, {sizes.training['steps']} steps; tokens/s without the start"
            part.record(f"{name}, one run", note, test_loss=loss, tokens_per_s=rate, s=seconds)
    about = f"{done} of {sizes.seeds * len(MIXTURES)} runs fitted into the time"
    for name, found in losses.items():
        values = {"test_loss": mean(found), "tokens_per_s": mean(rates[name])}
        if len(found) > 1:
            values["deviation_over_seeds"] = stdev(found)
        part.record(f"{name}, {len(found)} seed(s)", about, **values)


def run_config(sizes: Sizes, catalog: Path, out: Path, seed: int, mixture: dict[str, Any]) -> Train:
    """Return the config of one run."""
    steps = sizes.training["steps"]
    return Train.model_validate(
        {
            "catalog": catalog,
            "out": out,
            "target": TARGETS[0],
            "seed": seed,
            "model": sizes.model,
            "mixture": mixture,
            "optimizer": {"learning_rate": sizes.learning_rate, "warmup_steps": steps // 10},
            "training": {**sizes.training, "log_every_steps": max(steps // 5, 1)},
            "evaluation": {"every_steps": 0, "sequences": 64, "basis": False, "domains": False},
            "checkpoint": {"every_steps": 0},
        }
    )


def result_of(out: Path) -> tuple[float, float]:
    """Return the loss on the target's test split, and the last tokens per second, of a run."""
    lines = (out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    records = [json.loads(line) for line in lines]
    [loss] = [
        record["loss"]
        for record in records
        if record["kind"] == "eval" and record["set"] == "target/test"
    ]
    rate = [record["tokens_per_second"] for record in records if record["kind"] == "train"][-1]
    return loss, rate
