"""Measure what a learned mixture adds to the steps of a plain training loop.

Two plain loops take their steps in turns: one draws from a learned mixture and calls `after_step`,
the other draws from the natural mixture and does not. Both have a model of the same size. The
figure is the ratio of their process times over whole intervals, so that all updates count.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import process_time

import torch
from torch.utils.data import DataLoader
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks.hardware import headline, today
from tests.helpers.tiny_catalog import write_tiny_catalog
from trainer.library import LoopMixture, open_mixture


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=8, help="sequences per step")
    parser.add_argument("--tokens", type=int, default=64, help="tokens per sequence")
    parser.add_argument("--intervals", type=int, default=4)
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--out", type=Path, default=Path(f"benchmarks/results/{today()}-loop-overhead.md")
    )
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    with TemporaryDirectory() as name:
        text = measure(arguments, Path(name))
    print(text)
    arguments.out.write_text(text, encoding="utf-8")


def measure(arguments: argparse.Namespace, folder: Path) -> str:
    """Return the result as Markdown."""
    catalog = write_tiny_catalog(
        folder / "catalog", documents=(400,) * 8, document_tokens=10 * arguments.tokens
    )
    every = opened(arguments, catalog, folder / "long", {}, 4_000).config.mixture
    steps = arguments.intervals * every.update_every_steps
    learned = {"update_every_steps": every.update_every_steps}
    natural = {"mixer": "natural", "update_every_steps": steps}
    mixture = opened(arguments, catalog, folder / "learned", learned, steps)
    plain = opened(arguments, catalog, folder / "natural", natural, steps)
    model = language_model(arguments, mixture.vocabulary)
    own, other = (
        stepping(model, mixture, measured=True),
        stepping(language_model(arguments, mixture.vocabulary), plain, measured=False),
    )
    seconds: tuple[list[float], list[float]] = ([], [])
    for step in range(steps):
        order = ((own, 0), (other, 1)) if step % 2 else ((other, 1), (own, 0))
        for loop, side in order:
            begun = process_time()
            next(loop)
            seconds[side].append(process_time() - begun)
    return report(arguments, every.update_every_steps, mixture, model, seconds)


def opened(
    arguments: argparse.Namespace, catalog: Path, out: Path, mixture: dict[str, object], steps: int
) -> LoopMixture:
    return open_mixture(
        catalog=catalog,
        target="spe",
        out=out,
        mixture=mixture,
        training={
            "steps": steps,
            "batch_sequences": arguments.batch,
            "sequence_tokens": arguments.tokens,
        },
    )


def language_model(arguments: argparse.Namespace, vocabulary: int) -> LlamaForCausalLM:
    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocabulary,
            hidden_size=arguments.hidden,
            intermediate_size=4 * arguments.hidden,
            num_hidden_layers=4,
            num_attention_heads=4,
        )
    )


def stepping(model: LlamaForCausalLM, mixture: LoopMixture, *, measured: bool) -> Iterator[None]:
    """Take a step of a plain loop in every `next`."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    if measured:
        mixture.begin(model)
    batch_size = mixture.config.training.batch_sequences
    for batch in DataLoader(mixture.dataset(), batch_size=batch_size):
        model(**batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if measured:
            mixture.after_step(model)
        yield


def report(
    arguments: argparse.Namespace,
    every: int,
    mixture: LoopMixture,
    model: LlamaForCausalLM,
    seconds: tuple[list[float], list[float]],
) -> str:
    own, other = seconds
    part = every  # a whole interval, so that each part has one update
    parts = range(0, len(own), part)
    ratios = [sum(own[i : i + part]) / sum(other[i : i + part]) - 1 for i in parts]
    whole = sum(own) / sum(other) - 1
    listed = ", ".join(f"{ratio:+.2%}" for ratio in ratios)
    return f"""\
# A learned mixture in a plain loop

{headline()}

Llama of {sum(p.numel() for p in model.parameters()):,} parameters, {arguments.batch} sequences of
{arguments.tokens} tokens a step, float32, {arguments.threads} thread. {len(own):,} steps of each
loop, in turns. The mixture changes every {every} steps, as `open_mixture` chooses for this batch
and {mixture.config.mixture.target_sequences} sequences of the target.

| | ms a step, median | seconds of process time |
|---|---|---|
| plain loop, natural mixture | {1e3 * median(other):.2f} | {sum(other):.2f} |
| with `after_step` | {1e3 * median(own):.2f} | {sum(own):.2f} |

Overhead: **{whole:+.2%}** of the process time (by interval: {listed}). Other work on the machine
slows both loops alike: trust the ratio.
"""


if __name__ == "__main__":
    main()
