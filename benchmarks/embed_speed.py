"""Compare the speed of the encoder with `SentenceTransformer.encode` at its defaults.

Both get the documents in file order. They run in turns in one process, so that a noisy machine
slows both alike. The minimum cosine between their vectors shows whether they agree.
"""

import argparse
import gzip
import json
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from benchmarks.hardware import headline, today
from pipeline.config import Embed
from pipeline.embed.encoder import load_encoder
from pipeline.embed.identity import locate_model

ROUNDS = 3


def texts(corpus: Path, documents: int) -> list[str]:
    """Return the same number of first documents from each RedPajama-V2 file."""
    files = sorted((corpus / "documents").glob("*/*/*.json.gz"))
    each = -(-documents // max(len(files), 1))
    contents: list[str] = []
    for path in files:
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            contents += [json.loads(line)["raw_content"] for line in islice(lines, each)]
    return contents[:documents]


def timed(encode: Callable[[list[str]], Any], documents: list[str]) -> tuple[float, Any]:
    """Return the seconds of a call of `encode`, and its result."""
    started = perf_counter()
    result = encode(documents)
    return perf_counter() - started, result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--documents", type=int, default=1_024)
    parser.add_argument("--corpus", type=Path, default=Path("../shared/corpus"))
    parser.add_argument("--precision", choices=["auto", "float32", "bfloat16"], default="auto")
    parser.add_argument("--trial", action="store_true", help="do not write a result file")
    arguments = parser.parse_args()
    documents = texts(arguments.corpus, arguments.documents)

    from sentence_transformers import SentenceTransformer

    config = Embed(precision=arguments.precision)
    encoder = load_encoder(config)
    library = SentenceTransformer(
        str(locate_model(config.model)), device=encoder.models[0].device, local_files_only=True
    )
    encoder.encode(documents)  # the kernels of a length are compiled at its first use
    library.encode(documents[:64])

    encoder_rates: list[float] = []
    library_rates: list[float] = []
    cosine = 1.0
    for _ in range(ROUNDS):
        encoder_seconds, x = timed(encoder.encode, documents)
        library_seconds, y = timed(library.encode, documents)
        encoder_rates.append(len(documents) / encoder_seconds)
        library_rates.append(len(documents) / library_seconds)
        cosine = min(cosine, float((x * y).sum(axis=1).min()))
    ratio = np.median(np.array(encoder_rates) / np.array(library_rates))
    where = f"{len(encoder.models)} x {encoder.models[0].device}, {encoder.identity.precision}"
    text = "\n".join(
        (
            headline(),
            f"{len(documents)} documents, {ROUNDS} rounds, {where}",
            f"encoder {np.median(encoder_rates):8.1f} documents/s  ({_listed(encoder_rates)})",
            f"library {np.median(library_rates):8.1f} documents/s  ({_listed(library_rates)})",
            f"ratio   {ratio:8.2f}   minimum cosine {cosine:.5f}",
        )
    )
    print(text)
    if not arguments.trial:
        Path(f"benchmarks/results/{today()}-embed-speed.txt").write_text(
            text + "\n", encoding="utf-8"
        )


def _listed(rates: list[float]) -> str:
    return ", ".join(f"{rate:.1f}" for rate in rates)


if __name__ == "__main__":
    main()
