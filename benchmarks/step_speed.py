"""Compare a training step without mixing with other training loops on the same model and batches.

Four loops run in turns in one process:

* clustermix: `Run.take_step`, including reading the batches from the token store of the catalog,
  the learning rate schedule, gradient clipping and metrics.
* A bare loop with the same loss, which shows the overhead of the above.
* A plain loop: a transformers model, its logits and the cross entropy of torch.
* The Hugging Face `Trainer`, whose callback runs the steps of the other loops.

The last three loops read their batches from memory.
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
from trainer.inputs import open_inputs
from trainer.model.flops import utilisation
from trainer.model.loss import LanguageLoss
from trainer.model.model import build_model
from trainer.model.optimizer import build_optimizer
from trainer.run import Run
from trainer.sampling.batches import Batch, interval_batches
from trainer.state.metrics import timed_batches
from trainer.state.numeric_checks import BatchOrigin

CLUSTERMIX, BARE, PLAIN, HUGGING_FACE = (
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
        help="catalog to train on; a small one is made if it does not exist",
    )
    parser.add_argument("--target", default="mmlu")
    parser.add_argument("--preset", default="tiny")
    parser.add_argument("--batch", type=int, default=64, help="sequences per step")
    parser.add_argument("--micro", type=int, default=64, help="sequences per forward pass")
    parser.add_argument("--tokens", type=int, default=128, help="tokens per sequence")
    parser.add_argument("--precision", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--rounds", type=int, default=40, help="timed steps of each loop")
    parser.add_argument(
        "--untimed", type=int, default=5, help="steps of each loop before the timed ones"
    )
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
    run = begin_run(config, open_inputs(config), team)
    assert run is not None
    return run


def measure(arguments: argparse.Namespace, run: Run, folder: Path) -> dict[str, list[float]]:
    """Return the seconds of every timed step per loop.

    The other loops run in a callback of `Trainer`, outside its timed section.
    """
    steps, device = arguments.rounds + arguments.untimed, run.team.device
    run.begin_interval(0)
    batches = list(read(run, steps))
    own_steps = clustermix_steps(run, steps)
    sides: dict[str, Callable[[], object]] = {
        CLUSTERMIX: lambda: next(own_steps),
        BARE: loop(run, batches, same_loss),
        PLAIN: loop(run, batches, plain_loss),
    }
    seconds: dict[str, list[float]] = {side: [] for side in (*sides, HUGGING_FACE)}

    def now() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize()
        return perf_counter()

    class Turns(TrainerCallback):
        """Run one step of each other loop after each step of `Trainer`."""

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
    return {side: times[arguments.untimed :] for side, times in seconds.items()}


def read(run: Run, steps: int) -> Iterator[Batch]:
    return interval_batches(
        run.inputs.corpus,
        run.interval_plan(0),
        range(steps),
        batch_sequences=run.config.training.batch_sequences,
        rank=0,
        world=1,
    )


def clustermix_steps(run: Run, steps: int) -> Iterator[bool]:
    """Run the body of `loop.pretrain`, one step per item."""
    plan, size = run.interval_plan(0), run.config.training.batch_sequences
    for step, batch in enumerate(timed_batches(run.state, read(run, steps))):
        draws = plan.read(plan.batch(step, size, 0, 1))
        yield run.take_step(batch, BatchOrigin(step * size, draws.leaves, draws.rows), False)


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
    """Return a function that runs one step of a minimal training loop."""
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
    """Train with the Hugging Face `Trainer`.

    `Trainer` shifts the labels itself, so it trains on one label less per sequence.
    """
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
    trainer = Trainer(
        fresh_model(run),
        settings,
        train_dataset=rows,  # type: ignore[arg-type]
        callbacks=[turns],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train()


def report(arguments: argparse.Namespace, run: Run, seconds: dict[str, list[float]]) -> str:
    tokens = arguments.batch * arguments.tokens
    lines = [
        "| | ms per step, median | tokens/s "
        "| time of clustermix relative to this, median over rounds |",
        "|---|---|---|---|",
    ]
    for side, times in seconds.items():
        ratio = median(own / other for own, other in zip(seconds[CLUSTERMIX], times, strict=True))
        lines.append(
            f"| {side} | {median(times) * 1e3:.1f} | {tokens / median(times):,.0f} "
            f"| {'' if side == CLUSTERMIX else f'{ratio:.3f}'} |"
        )
    used = utilisation(
        run.engine.model, arguments.tokens, tokens / median(seconds[CLUSTERMIX]), run.team.device, 1
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
        f"{device}. Preset {arguments.preset}: {parameters:,} parameters, vocabulary "
        f"{run.inputs.vocabulary:,}. {arguments.precision}, {arguments.batch} sequences of "
        f"{arguments.tokens} tokens per step, {min(arguments.micro, arguments.batch)} per forward "
        f"pass. {arguments.rounds} rounds of one step each, after {arguments.untimed} warm-up "
        "rounds.",
        "\n".join(lines),
        "Other work on the machine slows all loops of a round alike, so the ratios are more "
        "reliable than the times.",
    ]
    if used is not None:
        parts.append(f"clustermix uses {used:.1%} of the GPU's bfloat16 peak (MFU).")
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    main()
