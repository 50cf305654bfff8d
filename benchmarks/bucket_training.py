"""Compare trainings whose catalog is on a store with trainings whose catalog is on this machine.

The store is an S3 server behind a proxy with the given latency and bandwidth. Every training starts
with an empty cache. Trainings with both catalogs take turns.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow.parquet as pq
from jaxtyping import Int

from benchmarks.hardware import headline, today
from data_catalog.transfer.copy import export_catalog
from tests.helpers.object_store import ObjectStore, serving_objects
from tests.helpers.stored_catalog import write_whole_catalog
from trainer.alignment.probes import member_probes
from trainer.config import Train
from trainer.inputs import Inputs, open_inputs
from trainer.sampling.batches import Pool
from trainer.sampling.plan import Drawn, draw_interval, leaf_weights

Numbers = Int[np.ndarray, " draws"]
URL = "s3://corpora/catalog"
LENGTH, BATCH, EVERY = 1_024, 4, 20
LEAVES = (400, 240, 300, 160, 120, 200, 0, 10)  # documents per leaf
DOCUMENT_TOKENS = 1_500


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=80)
    parser.add_argument("--left-out", type=int, default=10, help="first steps that are not counted")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--latency", type=float, default=20, help="milliseconds")
    parser.add_argument("--bandwidth", type=float, default=1, help="Gbit/s")
    parser.add_argument("--folder", type=Path, default=Path(), help="folder for temporary files")
    parser.add_argument("--out", type=Path, help="file of the result; default: print it")
    arguments = parser.parse_args()
    with TemporaryDirectory(dir=arguments.folder) as temporary, serving_objects() as store:
        text = "\n".join([headline(), "", *compare(Path(temporary), store, arguments)])
    text = f"# Training on a catalog in a bucket\n\n{text}\n"
    if arguments.out:
        (arguments.out / f"{today()}-bucket-training.md").write_text(text, encoding="utf-8")
    else:
        sys.stdout.write(text)


def compare(folder: Path, store: ObjectStore, arguments: argparse.Namespace) -> list[str]:
    """Train by turns, and return the lines of the result."""
    catalog = write_whole_catalog(folder / "catalog", LEAVES, DOCUMENT_TOKENS)
    export_catalog(catalog, URL)
    store.latency_seconds = arguments.latency / 1000
    store.bits_per_second = arguments.bandwidth * 1e9
    seconds: dict[str, list[float]] = {"local": [], "stored": []}
    waiting: dict[str, list[float]] = {"local": [], "stored": []}
    losses, ratios, requests = set(), [], []
    for number in range(arguments.rounds):
        places = [("local", str(catalog)), ("stored", URL)]
        for name, place in reversed(places) if number % 2 else places:
            run = folder / f"{name}-{number}"
            config = training(place, run, arguments.steps)
            steps = trained(config, folder / f"cache-{number}")
            seconds[name].append(median(steps[arguments.left_out :, 0]))
            waiting[name].append(float(steps[arguments.left_out :, 1].mean()))
            losses.add(tuple(steps[:, 2]))
        asked, bytes_read = token_requests(store)
        store.requests.clear()
        needed = needed_bytes(training(str(catalog), run, arguments.steps), run)
        ratios.append(bytes_read / needed)
        requests.append(asked)
    local, stored = (median(seconds[name]) for name in seconds)
    by_round = ", ".join(
        f"{there / here:.2f}"
        for here, there in zip(seconds["local"], seconds["stored"], strict=True)
    )
    return [
        f"{arguments.steps} steps of {BATCH} sequences of {LENGTH} tokens, mixer dga, new weights "
        f"every {EVERY} steps, one process of one thread. The store answers after "
        f"{arguments.latency:g} ms, with {arguments.bandwidth:g} Gbit/s. Every run starts with an "
        f"empty cache. {arguments.rounds} rounds in turns; the first {arguments.left_out} steps "
        "are not counted.",
        "",
        "| | catalog on this machine | catalog in a bucket | ratio |",
        "|---|---|---|---|",
        f"| median step, s | {local:.3f} | {stored:.3f} | {stored / local:.2f} ({by_round}) |",
        "| waiting for data per step, ms | "
        f"{1000 * median(waiting['local']):.2f} | {1000 * median(waiting['stored']):.2f} | |",
        "",
        f"Bytes of token files that were read, over those of the distinct sequences that were "
        f"drawn, measured and evaluated: {median(ratios):.3f}. Requests for them: "
        f"{median(requests):,.0f}.",
        "",
        f"The losses of all steps are {'identical' if len(losses) == 1 else 'NOT identical'} in "
        f"all {2 * arguments.rounds} runs.",
    ]


def training(catalog: str, out: Path, steps: int) -> Train:
    return Train.model_validate(
        {
            "catalog": catalog,
            "out": out,
            "target": "spe",
            "model": {"hidden_size": 128, "layers": 2, "heads": 4},
            "mixture": {"kind": "hard", "update_every_steps": EVERY, "measure_on": "probes"},
            "training": {
                "steps": steps,
                "batch_sequences": BATCH,
                "sequence_tokens": LENGTH,
                "log_every_steps": 1,
            },
            "evaluation": {"every_steps": 0, "sequences": 32},
            "checkpoint": {"every_steps": 0},
        }
    )


def trained(config: Train, cache: Path) -> np.ndarray:
    """Train in a process of its own, and return seconds, seconds of waiting and loss per step."""
    from flows.trainer_process import config_as_toml

    path = config.out.with_suffix(".toml")
    path.write_text(config_as_toml(config), encoding="utf-8")
    shutil.rmtree(cache, ignore_errors=True)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": str(cache.absolute())}
    subprocess.run([sys.executable, "-m", "trainer", str(path)], env=environment, check=True)
    lines = map(json.loads, (config.out / "metrics.jsonl").read_text().splitlines())
    rows = [
        (line["seconds"], line["data_seconds"], line["loss"])
        for line in lines
        if line["kind"] == "train"
    ]
    steps = np.array(rows)
    steps[1:, :2] -= steps[:-1, :2].copy()
    return steps


def token_requests(store: ObjectStore) -> tuple[int, int]:
    """Return the number of requests for token files, and their bytes."""
    ranges = [wanted for _, path, wanted in store.requests if "/tokens/" in path and wanted]
    bounds = [re.fullmatch(r"bytes=(\d+)-(\d+)", wanted) for wanted in ranges]
    return len(ranges), sum(int(found[2]) - int(found[1]) + 1 for found in bounds if found)


def needed_bytes(config: Train, run: Path) -> int:
    """Return the bytes of the distinct sequences of the corpus that a finished run read.

    Args:
        config: the config of the run, with the catalog on this machine.
        run: folder of the run, whose log of weights determines the sequences.
    """
    inputs = open_inputs(config)
    held_out = [
        chosen for chosen in inputs.final_sets if "/" not in chosen.name.replace("domain/", "")
    ]
    sets = [(chosen.leaves, chosen.rows) for chosen in held_out]
    drawn = list(draws_of_run(config, inputs, run))
    return distinct_bytes(inputs.corpus, drawn) + distinct_bytes(held_out[0].pool, sets)


def draws_of_run(config: Train, inputs: Inputs, run: Path) -> Iterator[tuple[Numbers, Numbers]]:
    """Yield leaves and rows of the sequences that a run trained on, and those it measured."""
    used = np.zeros_like(inputs.corpus.sequences)
    for interval, row in enumerate(pq.read_table(run / "weights.parquet").to_pylist()):
        if interval:
            probes = member_probes(config, inputs, interval, Drawn(used))
            yield from (probe.args for probe in probes if isinstance(probe, partial))
        weights = leaf_weights(np.array(row["sampling"]), inputs.basis.matrix)
        plan = draw_interval(
            interval,
            inputs.drawn(weights, config),
            inputs.corpus.sequences,
            used,
            draws=EVERY * BATCH,
            seed=config.seed,
        )
        draws = plan.read()
        yield draws.leaves, draws.rows
        used = used + plan.counts(plan.draws)


def distinct_bytes(pool: Pool, draws: Sequence[tuple[Numbers, Numbers]]) -> int:
    """Return the bytes of sequences of two-byte token ids, each once."""
    places = np.concatenate([np.stack(each) for each in draws], axis=1)
    return 2 * int((pool.targets(*np.unique(places, axis=1)) + 1).sum())


if __name__ == "__main__":
    main()
