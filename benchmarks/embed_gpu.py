"""Measure the encoder on a GPU: documents and tokens per second, and its share of a matmul limit.

The limit is the measured speed of the matrix products of a layer on one batch, with the same
shapes, in bfloat16, and without other work between them. The operations of the model are these
products and the two products of attention, for tokens without padding. A multiply-add counts as
two operations. The time of the encoder includes tokenization, padding, sorting and copying, which
the limit does not include.
"""

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from benchmarks.embed_speed import texts
from benchmarks.hardware import headline, today
from pipeline.config import Embed
from pipeline.embed.encoder import Encoder, load_encoder
from pipeline.embed.identity import locate_model

ROUNDS = 5
CHUNK_DOCUMENTS = 8_192


def products(shape: dict[str, Any], tokens: int) -> Iterator[tuple[int, int, int]]:
    """Yield the rows, inner and outer size of the matrix products of a layer.

    They are query, key, value and output, then the two products of the feed-forward block.
    """
    width, inner = shape["hidden_size"], shape["intermediate_size"]
    yield from [(tokens, width, width)] * 4
    yield tokens, width, inner
    yield tokens, inner, width


def operations(shape: dict[str, Any], lengths: np.ndarray) -> float:
    """Return the operations of the model for documents of these lengths in tokens."""
    layer = sum(2 * rows * a * b for rows, a, b in products(shape, int(lengths.sum())))
    attention = 4 * shape["hidden_size"] * float((lengths.astype(np.float64) ** 2).sum())
    return float(shape["num_hidden_layers"] * (layer + attention))


def limit(shape: dict[str, Any], tokens: int, device: str) -> float:
    """Return the maximum operations per second of the matrix products of a layer on one device."""
    import torch

    if not device.startswith("cuda"):  # Some processors take seconds for a product in bfloat16.
        tokens = min(tokens, 256)
    with torch.inference_mode():
        pairs = [
            (
                torch.randn(rows, a, dtype=torch.bfloat16, device=device),
                torch.randn(a, b, dtype=torch.bfloat16, device=device),
            )
            for rows, a, b in products(shape, tokens)
        ]
        best = 0.0
        rounds, repeats = (ROUNDS, 20) if device.startswith("cuda") else (1, 1)
        for _ in range(rounds):
            _wait(device)
            started = perf_counter()
            for _ in range(repeats):
                for x, y in pairs:
                    x @ y
            _wait(device)
            count = repeats * sum(2 * rows * a * b for rows, a, b in products(shape, tokens))
            best = max(best, count / (perf_counter() - started))
    return best


def _wait(device: str) -> None:
    import torch

    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


@dataclass(frozen=True)
class Rate:
    """The speed of a way of embedding."""

    name: str
    documents_per_second: float
    tokens_per_second: float
    operations_per_second: float
    share: float
    """Share of the limit."""


@dataclass(frozen=True)
class Result:
    limit: float
    """Operations per second on all devices."""
    lengths: np.ndarray
    """Tokens of each document."""
    rates: list[Rate]


def measure(
    encoder: Encoder, shape: dict[str, Any], documents: list[str], rounds: int = ROUNDS
) -> Result:
    """Measure the model on one device, and the encoder on all.

    Args:
        encoder: the encoder.
        shape: the config of its model.
        documents: texts.
        rounds: number of measurements, whose median counts.
    """
    chunks = [documents[i : i + CHUNK_DOCUMENTS] for i in range(0, len(documents), CHUNK_DOCUMENTS)]
    windows = [encoder.reader.read(chunk) for chunk in chunks]
    lengths = np.concatenate([chunk.lengths for chunk in windows])
    work, devices = operations(shape, lengths), len(encoder.models)
    # Warm up: the kernels of a length are chosen at its first use.
    encoder.encode(documents[:CHUNK_DOCUMENTS])
    speed_limit = sum(limit(shape, model.batch_tokens, model.device) for model in encoder.models)

    def model_alone() -> None:
        for chunk in windows:
            encoder._embed(chunk)

    def from_text() -> None:
        for _ in encoder.encode_chunks(chunks):
            pass

    rates = []
    for name, run, used in (
        ("model on one device, from tokens", model_alone, 1),
        ("encoder, from text", from_text, devices),
    ):
        seconds = []
        for _ in range(rounds):
            started = perf_counter()
            run()
            seconds.append(perf_counter() - started)
        took = float(np.median(seconds))
        share = work / took / (speed_limit * used / devices)
        documents_per_second, tokens_per_second = len(documents) / took, lengths.sum() / took
        rates.append(Rate(name, documents_per_second, float(tokens_per_second), work / took, share))
    return Result(speed_limit, lengths, rates)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--documents",
        type=int,
        default=32_768,
        help="number of documents; the corpus is repeated to reach it",
    )
    parser.add_argument("--corpus", type=Path, default=Path("../shared/corpus"))
    parser.add_argument("--batch-tokens", type=int, help="default: chosen by the encoder")
    parser.add_argument(
        "--cpu", action="store_true", help="try the script without a GPU; no result is written"
    )
    arguments = parser.parse_args()

    import torch

    if not torch.cuda.is_available() and not arguments.cpu:
        raise SystemExit(
            "benchmarks.embed_gpu: torch found no usable CUDA device. "
            "Use --cpu to try the script without one."
        )
    available = texts(arguments.corpus, arguments.documents)
    documents = (available * -(-arguments.documents // len(available)))[: arguments.documents]
    config = Embed(batch_tokens=arguments.batch_tokens)
    encoder = load_encoder(config)
    shape = json.loads((locate_model(config.model) / "config.json").read_text(encoding="utf-8"))
    rounds = ROUNDS if torch.cuda.is_available() else 1
    result = measure(encoder, shape, documents, rounds)
    rows = [
        "| measured | documents/s | tokens/s | TFLOP/s | share of the limit |",
        "|---|---|---|---|---|",
    ]
    for rate in result.rates:
        rows.append(
            f"| {rate.name} | {rate.documents_per_second:,.0f} | {rate.tokens_per_second:,.0f} "
            f"| {rate.operations_per_second / 1e12:.2f} | {rate.share:.1%} |"
        )
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    text = (
        f"# The encoder on a GPU\n\n{headline()}\n\n"
        f"{len(encoder.models)} x {name}, {encoder.identity.precision}, "
        f"{len(documents)} documents of {result.lengths.mean():.0f} tokens, "
        f"batches of {encoder.models[0].batch_tokens} tokens, median of {rounds}. "
        f"Limit: {result.limit / 1e12:.2f} TFLOP/s on all devices.\n\n" + "\n".join(rows)
    )
    print(text)
    if torch.cuda.is_available():
        Path(f"benchmarks/results/{today()}-embed-gpu.md").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
