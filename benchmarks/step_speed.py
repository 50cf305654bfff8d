"""A training step without mixing, against loops that others would write, on the same model and the same batches.

Four sides take turns in one process. clustermix: `Run.take_step`, batches read from the catalog's token store by its own reader, learning
rate, clipping, metrics, everything. The same loss in a bare loop: what all that costs. A plain loop: a transformers model, its logits and
torch's cross entropy. Trainer: Hugging Face's, whose callback gives the others their turns. The last three find their batches in memory.
"""

import argparse
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from transformers import (
    PreTrainedModel,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from benchmarks.hardware import headline, today
from data_catalog.format.tokens import IGNORED
from tests.helpers.tiny_catalog import write_tiny_catalog
from trainer.begin import begin_run
from trainer.config import Train
from trainer.distributed import Team
from trainer.model.flops import utilisation
from trainer.model.model import LanguageLoss, build_model
from trainer.model.optimizer import build_optimizer
from trainer.run import Run
from trainer.sampling.batches import Batch, interval_batches
from trainer.state.metrics import timed_batches
from trainer.state.numeric_checks import BatchOrigin

OURS, BARE, PLAIN, HUGGING_FACE = (
    "clustermix",
    "bare loop, same loss",
    "plain torch loop",
    "Hugging Face Trainer",
)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--catalog",
        type=Path,
        default=Path("catalogs/sample"),
        help="a small one is made if it is not there",
    )
    parser.add_argument("--target", default="mmlu")
    parser.add_argument("--preset", default="tiny")
    parser.add_argument("--batch", type=int, default=64, help="sequences of a step")
    parser.add_argument("--micro", type=int, default=64, help="sequences of a forward pass")
    parser.add_argument("--tokens", type=int, default=128, help="of a sequence")
    parser.add_argument("--precision", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--rounds", type=int, default=40, help="steps of each side that are timed")
    parser.add_argument("--untimed", type=int, default=5, help="steps of each side before those")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--out", type=Path, default=Path(f"benchmarks/results/{today()}-step-speed.md")
    )
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    device = torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    with TemporaryDirectory() as name:
        run = open_run(arguments, Path(name), Team(device=device))
        seconds = measure(arguments, run, Path(name))
        text = report(arguments, run, seconds)
    print(text)
    arguments.out.write_text(text, encoding="utf-8")


def open_run(arguments: argparse.Namespace, folder: Path, team: Team) -> Run:
    catalog, target = arguments.catalog, arguments.target
    if not (catalog / "catalog.json").is_file():
        catalog, target = (
            write_tiny_catalog(
                folder / "catalog", documents=(400,) * 8, document_tokens=10 * arguments.tokens
            ),
            "spe",
        )
    steps = arguments.rounds + arguments.untimed
    config = Train.model_validate(
        {
            "catalog": catalog,
            "out": folder / "run",
            "target": target,
            "model": {"preset": arguments.preset},
            "mixture": {"mixer": "natural", "update_every_steps": steps},
            "training": {
                "steps": steps,
                "batch_sequences": arguments.batch,
                "micro_batch_sequences": arguments.micro,
                "sequence_tokens": arguments.tokens,
                "precision": arguments.precision,
            },
            "evaluation": {"every_steps": 0},
            "checkpoint": {"every_steps": 0},
        }
    )
    (folder / "run").mkdir()
    run = begin_run(config, team)
    assert run is not None
    return run


def measure(arguments: argparse.Namespace, run: Run, folder: Path) -> dict[str, list[float]]:
    """Seconds of every timed step, by side. `Trainer` leads: the others' steps happen in its callback, off its clock."""
    steps, device = arguments.rounds + arguments.untimed, run.team.device
    run.begin_interval(0)
    batches = list(read(run, steps))
    ours = our_steps(run, steps)
    sides: dict[str, Callable[[], object]] = {
        OURS: lambda: next(ours),
        BARE: loop(run, batches, same_loss),
        PLAIN: loop(run, batches, plain_loss),
    }
    seconds: dict[str, list[float]] = {side: [] for side in (*sides, HUGGING_FACE)}

    def now() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize()
        return perf_counter()

    class Turns(TrainerCallback):
        begun = 0.0

        def on_train_begin(self, *_: object, **__: object) -> None:
            self.begun = now()

        def on_step_end(self, _: TrainingArguments, state: Any, *__: object, **___: object) -> None:
            seconds[HUGGING_FACE].append(now() - self.begun)
            names = list(sides)
            for side in names if state.global_step % 2 else names[::-1]:
                begun = now()
                sides[side]()
                seconds[side].append(now() - begun)
            self.begun = now()

    with_trainer(arguments, run, batches, folder, Turns())
    return {side: found[arguments.untimed :] for side, found in seconds.items()}


def read(run: Run, steps: int) -> Iterator[Batch]:
    return interval_batches(
        run.inputs.corpus,
        run.plan(0),
        range(steps),
        batch_sequences=run.config.training.batch_sequences,
        rank=0,
        world=1,
    )


def our_steps(run: Run, steps: int) -> Iterator[bool]:
    """The body of `loop.pretrain`, a step at a time."""
    plan, size = run.plan(0), run.config.training.batch_sequences
    for step, batch in enumerate(timed_batches(run.state, read(run, steps))):
        whole = plan.batch(step, size, 0, 1)
        yield run.take_step(
            batch, BatchOrigin(step * size, plan.leaves[whole], plan.rows[whole]), False
        )


def fresh_model(run: Run) -> PreTrainedModel:
    config, inputs = run.config, run.inputs
    return build_model(
        config.model,
        inputs.vocabulary,
        inputs.files.end_of_text,
        config.training.sequence_tokens,
        config.seed,
    )


def loop(
    run: Run,
    batches: list[Batch],
    nats: Callable[[PreTrainedModel, str], Callable[[Tensor, Tensor], Tensor]],
) -> Callable[[], None]:
    """The least that trains: one call is one step."""
    settings, device = run.config.training, run.team.device
    model = fresh_model(run).to(device)  # type: ignore[arg-type]
    sum_of, optimizer, numbers = (
        nats(model, settings.precision),
        build_optimizer(model, run.config.optimizer),
        count(),
    )

    def step() -> None:
        batch = batches[next(numbers)].to(device)
        optimizer.zero_grad()
        for inputs, labels in zip(
            batch.inputs.split(settings.micro_batch_sequences),
            batch.labels.split(settings.micro_batch_sequences),
            strict=True,
        ):
            (sum_of(inputs, labels) / batch.total).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), run.config.optimizer.clip)
        optimizer.step()

    return step


def same_loss(model: PreTrainedModel, precision: str) -> Callable[[Tensor, Tensor], Tensor]:
    loss = LanguageLoss(model, precision)
    return lambda inputs, labels: loss(inputs, labels).total


def plain_loss(model: PreTrainedModel, precision: str) -> Callable[[Tensor, Tensor], Tensor]:
    def nats(inputs: Tensor, labels: Tensor) -> Tensor:
        with torch.autocast(inputs.device.type, torch.bfloat16, enabled=precision == "bfloat16"):
            logits = model(input_ids=inputs, use_cache=False).logits
        return functional.cross_entropy(
            logits.float().flatten(0, 1), labels.flatten(), ignore_index=IGNORED, reduction="sum"
        )

    return nats


def with_trainer(
    arguments: argparse.Namespace,
    run: Run,
    batches: list[Batch],
    folder: Path,
    turns: TrainerCallback,
) -> None:
    """It shifts labels itself: so it learns one label a sequence less."""
    rows = [
        {"input_ids": inputs, "labels": inputs.masked_fill(labels == IGNORED, IGNORED)}
        for batch in batches
        for inputs, labels in zip(batch.inputs, batch.labels, strict=True)
    ]
    optimizer = run.config.optimizer
    settings = TrainingArguments(
        output_dir=str(folder / "trainer"),
        max_steps=len(batches),
        per_device_train_batch_size=min(arguments.micro, arguments.batch),
        gradient_accumulation_steps=-(-arguments.batch // arguments.micro),
        learning_rate=optimizer.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=optimizer.warmup_steps,
        weight_decay=optimizer.weight_decay,
        adam_beta1=optimizer.beta1,
        adam_beta2=optimizer.beta2,
        max_grad_norm=optimizer.clip,
        optim="adamw_torch_fused",
        bf16=arguments.precision == "bfloat16",
        use_cpu=run.team.device.type == "cpu",
        logging_steps=run.config.training.log_every_steps,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    trainer = Trainer(fresh_model(run), settings, train_dataset=rows, callbacks=[turns])  # type: ignore[arg-type]
    trainer.remove_callback(PrinterCallback)
    trainer.train()


def report(arguments: argparse.Namespace, run: Run, seconds: dict[str, list[float]]) -> str:
    tokens = arguments.batch * arguments.tokens
    lines = [
        "| | ms a step, median | tokens/s | clustermix takes times as long, median of the rounds |",
        "|---|---|---|---|",
    ]
    for side, found in seconds.items():
        ratio = median(ours / theirs for ours, theirs in zip(seconds[OURS], found, strict=True))
        lines.append(
            f"| {side} | {median(found) * 1e3:.1f} | {tokens / median(found):,.0f} | {'' if side == OURS else f'{ratio:.3f}'} |"
        )
    used = utilisation(
        run.engine.model, arguments.tokens, tokens / median(seconds[OURS]), run.team.device, 1
    )
    parameters = sum(p.numel() for p in run.engine.model.parameters())
    device = (
        torch.cuda.get_device_name(run.team.device)
        if run.team.device.type == "cuda"
        else f"CPU, {arguments.threads} threads"
    )
    parts = [
        "# A training step without mixing",
        headline(),
        f"{device}. Preset {arguments.preset}: {parameters:,} parameters, vocabulary {run.inputs.vocabulary:,}. {arguments.precision}, "
        f"{arguments.batch} sequences of {arguments.tokens} tokens a step, {min(arguments.micro, arguments.batch)} at a time. "
        f"{arguments.rounds} rounds of one step each, after {arguments.untimed} that are not counted.",
        "\n".join(lines),
        "Other work on the machine slows all sides of a round alike: trust the ratios.",
    ]
    if used is not None:
        parts.append(f"clustermix uses {used:.1%} of the GPU's bfloat16 peak (MFU).")
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    main()
