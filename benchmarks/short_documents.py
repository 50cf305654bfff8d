"""Measure what it is worth to keep the documents of a sequence apart, on short documents.

A small model is trained on a made-up language with `training.separate_documents` and without. Every
document has one of several topics, each with its own table of following tokens, and ends with an
end-of-text. The table shows the loss on held-out documents, each alone after an end-of-text, and
the time of a step.
"""

import argparse
import time
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.hardware import headline, today
from trainer.config import Model, Optimizer, Training
from trainer.distributed import Team
from trainer.model.engine import build_engine
from trainer.model.model import build_model
from trainer.model.optimizer import build_optimizer
from trainer.sampling.batches import Batch

VOCABULARY, TOKENS, SEQUENCES = 64, 256, 8
TOPICS, SUCCESSORS = 4, 4
SHORTEST, LONGEST = 10, 60  # tokens of a document, without its end-of-text
HELD_OUT = 256  # documents


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for seed in range(arguments.seeds):
        found = [measure(separate, seed, arguments.steps) for separate in (False, True)]
        losses, times = zip(*found, strict=True)
        rows.append(
            f"| {seed} | {losses[0]:.4f} | {losses[1]:.4f} | {losses[1] - losses[0]:+.4f} | "
            f"{times[0]:.0f} | {times[1]:.0f} |"
        )
        print(rows[-1], flush=True)
    text = report(rows, arguments.steps)
    (arguments.out / f"{today()}-short-documents.md").write_text(text, encoding="utf-8")


def measure(separate: bool, seed: int, steps: int) -> tuple[float, float]:
    """Return the held-out loss in nats per token and the median milliseconds of a step."""
    training = Training(sequence_tokens=TOKENS, separate_documents=separate)
    model = build_model(Model(hidden_size=64, layers=2, heads=4), VOCABULARY, 0, TOKENS, seed)
    engine = build_engine(model, training, Team())
    optimizer = build_optimizer(model, Optimizer())
    for group in optimizer.param_groups:
        group["lr"] = 3e-3
    draws, seconds = torch.Generator().manual_seed(1000 + seed), []
    for _ in range(steps):
        begun = time.perf_counter()
        engine.clear()
        engine.backward(stream(draws))
        engine.clip(1.0)
        optimizer.step()
        seconds.append(time.perf_counter() - begun)
    batch = alone(torch.Generator().manual_seed(1))
    loss = float(engine.losses(engine.packed(batch)).double().sum()) / batch.total
    return loss, float(torch.tensor(seconds).median()) * 1000


def document(draws: torch.Generator) -> list[int]:
    """Return the tokens of a document and its end-of-text, which is 0."""
    size, topic, *choices = (
        int(torch.randint(low, high, (), generator=draws))
        for low, high in [(SHORTEST, LONGEST), (0, TOPICS), *[(0, SUCCESSORS)] * LONGEST]
    )
    tokens = [1 + int(torch.randint(0, VOCABULARY - 1, (), generator=draws))]
    for choice in choices[: size - 1]:
        tokens.append(FOLLOWING[topic][tokens[-1]][choice])
    return [*tokens, 0]


def stream(draws: torch.Generator) -> Batch:
    """Return a batch cut from a stream of documents."""
    tokens: list[int] = []
    while len(tokens) < SEQUENCES * TOKENS + 1:
        tokens += document(draws)
    inputs, labels = (
        torch.tensor(tokens[first : first + SEQUENCES * TOKENS]).view(SEQUENCES, TOKENS)
        for first in (0, 1)
    )
    return Batch(inputs, labels, SEQUENCES * TOKENS)


def alone(draws: torch.Generator) -> Batch:
    """Return the held-out documents, each after an end-of-text."""
    inputs = torch.zeros(HELD_OUT, TOKENS, dtype=torch.int64)
    labels: Tensor = torch.full_like(inputs, -100)
    for row in range(HELD_OUT):
        tokens = torch.tensor(document(draws))
        inputs[row, 1 : len(tokens)] = tokens[:-1]
        labels[row, : len(tokens)] = tokens
    return Batch(inputs, labels, int((labels >= 0).sum()))


def report(rows: list[str], steps: int) -> str:
    """Return the page of results."""
    lines = [
        "# Documents of a sequence kept apart",
        "",
        headline(),
        "",
        f"Made by `python -m benchmarks.short_documents`: a Llama of 2 layers of width 64, {steps} "
        f"steps of {SEQUENCES} sequences of {TOKENS} tokens, documents of {SHORTEST} to {LONGEST} "
        f"tokens on {TOPICS} topics. Loss in nats per token on {HELD_OUT} held-out documents.",
        "",
        "| seed | mixed | apart | difference | mixed, ms per step | apart, ms per step |",
        "|---|---|---|---|---|---|",
        *rows,
        "",
    ]
    return "\n".join(lines)


_TABLES = torch.Generator().manual_seed(0)
FOLLOWING: list[list[list[int]]] = torch.randint(
    1, VOCABULARY, (TOPICS, VOCABULARY, SUCCESSORS), generator=_TABLES
).tolist()

if __name__ == "__main__":
    main()
