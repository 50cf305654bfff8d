"""Documents a second: our batches against SentenceTransformer.encode at its defaults, both given the documents in file order.

Both run in turns in one process, so that a noisy machine slows both alike; the smallest cosine says whether they agree.
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
    """The first documents of every RedPajama-V2 file in turn."""
    files = sorted((corpus / "documents").glob("*/*/*.json.gz"))
    each = -(-documents // max(len(files), 1))
    found: list[str] = []
    for path in files:
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            found += [json.loads(line)["raw_content"] for line in islice(lines, each)]
    return found[:documents]


def timed(encode: Callable[[list[str]], Any], documents: list[str]) -> tuple[float, Any]:
    started = perf_counter()
    result = encode(documents)
    return perf_counter() - started, result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--documents", type=int, default=1_024)
    parser.add_argument("--corpus", type=Path, default=Path("../shared/corpus"))
    parser.add_argument("--precision", choices=["auto", "float32", "bfloat16"], default="auto")
    parser.add_argument("--trial", action="store_true", help="write no result")
    arguments = parser.parse_args()
    documents = texts(arguments.corpus, arguments.documents)

    from sentence_transformers import SentenceTransformer

    config = Embed(precision=arguments.precision)
    encoder = load_encoder(config)
    library = SentenceTransformer(
        str(locate_model(config.model)), device=encoder.models[0].device, local_files_only=True
    )
    encoder.encode(documents)  # each length's kernels are compiled at its first use
    library.encode(documents[:64])

    ours: list[float] = []
    theirs: list[float] = []
    cosine = 1.0
    for _ in range(ROUNDS):
        mine, x = timed(encoder.encode, documents)
        other, y = timed(library.encode, documents)
        ours.append(len(documents) / mine)
        theirs.append(len(documents) / other)
        cosine = min(cosine, float((x * y).sum(axis=1).min()))
    where = f"{len(encoder.models)} x {encoder.models[0].device}, {encoder.identity.precision}"
    text = "\n".join(
        (
            headline(),
            f"{len(documents)} documents, {ROUNDS} rounds, {where}",
            f"ours    {np.median(ours):8.1f} documents/s  ({', '.join(f'{rate:.1f}' for rate in ours)})",
            f"library {np.median(theirs):8.1f} documents/s  ({', '.join(f'{rate:.1f}' for rate in theirs)})",
            f"ratio   {np.median(np.array(ours) / np.array(theirs)):8.2f}   least cosine {cosine:.5f}",
        )
    )
    print(text)
    if not arguments.trial:
        Path(f"benchmarks/results/{today()}-embed-speed.txt").write_text(
            text + "\n", encoding="utf-8"
        )


if __name__ == "__main__":
    main()
