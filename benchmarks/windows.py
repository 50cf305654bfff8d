"""Embed windows of every document of the corpus, as a large set of real vectors.

An interrupted run resumes. `read` returns the vectors.
"""

import argparse
import gzip
import json
import textwrap
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np

from pipeline.config import Embed
from pipeline.embed.encoder import load_encoder

CHARACTERS = 184
CHUNK = 16_384
CACHE = Path("benchmarks/cache/windows")


def windows(corpus: Path) -> Iterator[str]:
    """Yield the windows of all documents, at most CHARACTERS long."""
    for path in sorted((corpus / "documents").glob("*/*/*.json.gz")):
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            for line in lines:
                yield from textwrap.wrap(json.loads(line)["raw_content"], CHARACTERS)


def read(cache: Path = CACHE) -> np.ndarray:
    """Return all embedded windows, `(windows, 384)` float16, in the order of the corpus."""
    files = sorted(cache.glob("*.npy"))
    if not files:
        raise SystemExit(
            f"{cache}: contains no vectors. "
            "Run `python -m benchmarks.windows` first (about 30 minutes on two cores)."
        )
    return np.concatenate([np.load(path, allow_pickle=False) for path in files])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corpus", type=Path, default=Path("../shared/corpus"))
    parser.add_argument("--cache", type=Path, default=CACHE)
    arguments = parser.parse_args()
    arguments.cache.mkdir(parents=True, exist_ok=True)
    encoder = load_encoder(Embed(max_tokens=64))
    texts = windows(arguments.corpus)
    number = 0
    while chunk := list(islice(texts, CHUNK)):
        place = arguments.cache / f"{number:05d}.npy"
        if not place.exists():
            np.save(
                place.with_suffix(".tmp.npy"),
                encoder.encode(chunk).astype(np.float16),
                allow_pickle=False,
            )
            place.with_suffix(".tmp.npy").rename(place)
            print(place, len(chunk), flush=True)
        number += 1


if __name__ == "__main__":
    main()
