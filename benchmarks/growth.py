"""Fit how the time and memory of every stage grow with the corpus: builds of 1, 2, 4 and 8 times.

Documents per part stay the same, so the number of parts grows, as with more files of a corpus. Each
build is a process of its own, which has made a tiny build before, so that libraries are loaded.
Time is processor time, since machines are shared, and memory is the peak of a stage over the memory
before it. Exponents are least-squares slopes of logarithms. Exit code 1 if a stage grows faster
than the limits.
"""

import argparse
import ctypes
import gzip
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from time import process_time
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.hardware import headline, today
from benchmarks.large_build import peak_mebibytes, synthetic
from data_catalog.settings import parse
from pipeline.config import Build
from pipeline.parts import Part
from pipeline.run import build

MAXIMUM_TIME_EXPONENT = 1.1
MAXIMUM_MEMORY_EXPONENT = 0.2
TIMES = (1, 2, 4, 8)
WORDS, TOPICS, DIMENSION = 100, 256, 384
VOCABULARY = 30_000
REPEATED = 0.03  # share of documents that copy the one before
# Less time or memory than this is noise, and counts as this much.
NOISE_SECONDS, NOISE_MEBIBYTES = 0.2, 32.0


def write_corpus(root: Path, parts: int, documents: int) -> None:
    """Write `parts` files of `documents` each, as gzipped JSON lines in the layout of RedPajama-V2.

    A document has words of its topic, whose frequencies follow Zipf's law.
    """
    frequencies = 1.0 / np.arange(1, VOCABULARY + 1)
    frequencies /= frequencies.sum()
    for part in range(parts):
        place = root / f"documents/2023-06/{part:04d}/en_head.json.gz"
        place.parent.mkdir(parents=True)
        random = np.random.Generator(np.random.Philox(key=[part, 0]))
        topics = random.integers(TOPICS, size=documents)
        words = random.choice(VOCABULARY, size=(documents, WORDS), p=frequencies)
        words = (words * (topics[:, None] + 1)) % VOCABULARY
        copies = np.flatnonzero(random.random(documents) < REPEATED)
        words[copies] = words[copies - 1]
        topics[copies] = topics[copies - 1]
        with gzip.open(place, "wt", encoding="utf-8", compresslevel=1) as file:
            for topic, row in zip(topics.tolist(), words.tolist(), strict=True):
                record = {
                    "raw_content": " ".join(f"w{word}" for word in row),
                    "url": str(topic),
                    "source_domain": f"site-{topic}",
                    "language": "en",
                }
                file.write(json.dumps(record) + "\n")


def settings(folder: Path) -> dict[str, Any]:
    """Return the config of a build whose limits are small, so that all sizes reach them."""
    return {
        "out": str(folder / "catalog"),
        "source": {"kind": "rpv2", "path": str(folder / "corpus")},
        "quality": {"preset": "none"},
        "dedup": {"tiers": ["digest", "minhash"], "memory_megabytes": 64},
        "cluster": {"granularities": [16, 256], "sample": 10_000},
        "tokenizer": {"vocabulary": 1_000, "sample_characters": 500_000},
        "store": {"file_megabytes": 2},
    }


def measure(folder: Path) -> dict[str, tuple[float, float]]:
    """Build the corpus in a folder, and return the seconds and MiB of each stage."""
    centres = np.random.Generator(np.random.Philox(key=0)).standard_normal((TOPICS, DIMENSION))
    base = (centres / np.linalg.norm(centres, axis=1, keepdims=True)).astype(np.float32)
    replaced = synthetic(base)
    measured: dict[str, tuple[float, float]] = {}
    floor, last = resident_mebibytes(), process_time()

    def timed(stage: str, function: Any, calls: Sequence[tuple[Any, ...]]) -> list[Part]:
        nonlocal floor, last
        floor, last = resident_mebibytes(), process_time()
        parts = [(replaced if stage == "embed" else function)(*call) for call in calls]
        if calls:
            measured[stage] = process_time() - last, peak_mebibytes() - floor
        floor, last = resident_mebibytes(), process_time()
        return parts

    build(parse(Build, settings(folder), "growth"), timed)
    measured["publish"] = process_time() - last, peak_mebibytes() - floor
    return measured


def resident_mebibytes() -> float:
    """Return the memory of this process in MiB, without what allocators keep for later."""
    pa.default_memory_pool().release_unused()
    ctypes.CDLL(None).malloc_trim(0)
    peak_mebibytes()  # sets the peak to the present value
    return peak_mebibytes()


def exponent(values: Sequence[float], noise: float) -> float:
    """Return the slope of the logarithm of `values` over that of TIMES."""
    kept = np.maximum(values, noise)
    return float(np.polyfit(np.log(TIMES), np.log(kept), 1)[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--documents", type=int, default=2_000, help="documents per part")
    parser.add_argument("--parts", type=int, default=6, help="parts of the smallest build")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        with TemporaryDirectory(prefix="growth-") as name:
            write_corpus(Path(name) / "corpus", 2, 400)
            measure(Path(name))
        print(json.dumps(measure(arguments.measure)))
        return
    sizes: list[dict[str, tuple[float, float]]] = []
    for times in TIMES:
        with TemporaryDirectory(prefix="growth-") as name:
            folder = Path(name)
            write_corpus(folder / "corpus", times * arguments.parts, arguments.documents)
            command = [sys.executable, "-m", "benchmarks.growth", "--measure", name]
            done = subprocess.run(
                command, check=True, stdout=subprocess.PIPE, text=True, env={**os.environ}
            )
            sizes.append(json.loads(done.stdout.splitlines()[-1]))
        print(f"{times}x: {sum(seconds for seconds, _ in sizes[-1].values()):.1f} s", flush=True)
    head = " | ".join(f"{times}x" for times in TIMES)
    rows = [
        f"| stage | {head} | exponent | {head} | exponent |",
        "|---" * (2 * len(TIMES) + 3) + "|",
    ]
    excessive = []
    for stage in sizes[0]:
        seconds, memory = zip(*(size[stage] for size in sizes), strict=True)
        time = exponent(seconds, NOISE_SECONDS)
        space = exponent(memory, NOISE_MEBIBYTES)
        if time > MAXIMUM_TIME_EXPONENT or space > MAXIMUM_MEMORY_EXPONENT:
            excessive.append(stage)
        rows.append(
            f"| {stage} | {' | '.join(f'{value:.2f}' for value in seconds)} | {time:.2f} "
            f"| {' | '.join(f'{value:.0f}' for value in memory)} | {space:.2f} |"
        )
    text = (
        f"# Growth of the stages of a build\n\n{headline()}\n\n"
        f"{arguments.documents:,} documents per part, {arguments.parts} parts to "
        f"{TIMES[-1] * arguments.parts} parts, embeddings synthetic. First the processor seconds "
        "of each stage, then its peak memory in MiB over that before it. Values below "
        f"{NOISE_SECONDS} s and {NOISE_MEBIBYTES:.0f} MiB count as these in the exponents.\n\n"
        + "\n".join(rows)
        + f"\n\nLimits: {MAXIMUM_TIME_EXPONENT} and {MAXIMUM_MEMORY_EXPONENT}. "
        + (f"Exceeded by: {', '.join(excessive)}." if excessive else "No stage exceeds them.")
    )
    Path(f"benchmarks/results/{today()}-growth.md").write_text(text + "\n", encoding="utf-8")
    print("\n".join(rows))
    if excessive:
        sys.exit(f"grows too fast: {', '.join(excessive)}")


if __name__ == "__main__":
    main()
