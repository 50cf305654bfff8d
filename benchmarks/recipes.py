"""Compare our training recipes with those of nanochat and torchtitan, on the same tokens.

All recipes train one architecture: a small Qwen3 with normalised queries and keys, half as many
keys as queries, and an output layer of its own, all with the same initial weights per seed. The
sequences are a walk over the corpus of a catalog without replacement, the same for all recipes. A
recipe is what is left: its optimizers, rates, schedules, decay and clipping. Every recipe's rates
are scaled by each of a few factors in one run of another seed. The best factor is compared.

Lengths of warm-up are the shares that they have at the recipe's own length. From nanochat (its
`base_train.py` and `gpt.py` of 2026-07-03) come the rates, their scaling by batch and width, betas,
decay, and the schedules of rates, momentum and decay. Its Muon is torch's here, without its
per-neuron scaling and polar coefficients. From torchtitan (its `default_adamw` and learning rate
scheduler of 2026-08-21) come AdamW's settings, decay of all parameters and the linear schedule.
"""

import argparse
import math
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel, Qwen3Config

from benchmarks.hardware import headline, today
from data_catalog.format.files import open_files
from data_catalog.format.tokens import open_tokens
from trainer.config import Optimizer, Training
from trainer.distributed import Team
from trainer.evaluation.evaluate import evaluation_set
from trainer.model.engine import Engine, build_engine
from trainer.model.optimizer import (
    MuonWithAdamW,
    build_optimizer,
    is_muon,
    learning_rate,
    token_tables,
)
from trainer.sampling.batches import Pool

WIDTH, LAYERS, HEADS = 64, 4, 4
TOKENS, SEQUENCES = 128, 8  # per sequence, and per step
TUNING_SEED = 100
REFERENCE_WIDTH, REFERENCE_BATCH = 768, 2**19  # nanochat's, in which its rates are given
REFERENCE_PARAMETERS = 12 * 12 * 768**2 + 32_768 * 768  # matrices and output layer of its model d12
NANOCHAT_STEPS = 12 * REFERENCE_PARAMETERS // REFERENCE_BATCH

Apply = Callable[[torch.optim.Optimizer, int], None]


@dataclass(frozen=True)
class Recipe:
    """A training recipe: its optimizer, clipping and z-loss."""

    build: Callable[[PreTrainedModel, int, float], tuple[torch.optim.Optimizer, Apply]]
    """Function of the model, the number of steps and the factor of rates. It returns the optimizer
    and a function that sets the rates of a step."""
    factor_of: str | None = None
    """Recipe whose best factor is used. None: its own."""
    clip: float | None = 1.0
    z_loss: float = 0.0


def ours(settings: Optimizer) -> Callable[..., tuple[torch.optim.Optimizer, Apply]]:
    """Return the builder of a recipe of our own. Its warm-up is a share of 1,000 steps."""

    def build(
        model: PreTrainedModel, steps: int, factor: float
    ) -> tuple[torch.optim.Optimizer, Apply]:
        scaled = settings.model_copy(
            update={
                "learning_rate": settings.learning_rate * factor,
                "warmup_steps": settings.warmup_steps * steps // 1_000,
            }
        )

        def apply(optimizer: torch.optim.Optimizer, step: int) -> None:
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(scaled, step, steps)

        return build_optimizer(model, scaled), apply

    return build


def torchtitan(
    model: PreTrainedModel, steps: int, factor: float
) -> tuple[torch.optim.Optimizer, Apply]:
    """AdamW, decay of all parameters, warm-up of a fifth of the steps, linear decay to zero."""
    warmup = steps // 5
    rates = [
        8e-4 * factor * min((s + 1) / warmup, (steps - s) / (steps - warmup)) for s in range(steps)
    ]

    def apply(optimizer: torch.optim.Optimizer, step: int) -> None:
        for group in optimizer.param_groups:
            group["lr"] = rates[step]

    optimizer = torch.optim.AdamW(
        model.parameters(), lr=8e-4, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1
    )
    return optimizer, apply


def nanochat(
    model: PreTrainedModel, steps: int, factor: float
) -> tuple[torch.optim.Optimizer, Apply]:
    """Muon for matrices, AdamW with rates of their own for embeddings and the output layer."""
    embedding, head = token_tables(model)
    tables = {id(embedding), id(head)}
    rest = [p for p in model.parameters() if id(p) not in tables]
    matrices, vectors = [p for p in rest if p.ndim == 2], [p for p in rest if p.ndim < 2]
    counted = sum(p.numel() for p in matrices) + head.numel()
    batch = math.sqrt(SEQUENCES * TOKENS / REFERENCE_BATCH)
    narrow = math.sqrt(REFERENCE_WIDTH / WIDTH)
    decay = 0.28 * batch * REFERENCE_PARAMETERS / counted
    muon = torch.optim.Muon(matrices, lr=0.02 * batch, weight_decay=decay, momentum=0.95)
    adamw = torch.optim.AdamW(
        [
            _group(head, 0.008 * batch * narrow, (0.8, 0.96), 0.01),
            _group(embedding, 0.3 * batch * narrow, (0.8, 0.995), 0.001),
            # Its norms have no weights. These are trained like its scalars of the layers.
            {**_group(head, 0.5 * 0.01 * batch, (0.8, 0.95), 0.0), "params": vectors},
        ],
        eps=1e-10,
    )
    optimizer = MuonWithAdamW(muon, adamw)
    peaks = [group["lr"] * factor for group in optimizer.param_groups]
    warmup, warmdown = max(round(40 / NANOCHAT_STEPS * steps), 1), round(0.65 * steps)
    rising = round(400 / NANOCHAT_STEPS * steps)

    def apply(optimizer: torch.optim.Optimizer, step: int) -> None:
        left = min((steps - step) / warmdown, 1.0)
        share = min((step + 1) / warmup, left + (1 - left) * 0.05)
        momentum = 0.85 + 0.12 * min(step / rising, 1.0) if left == 1 else 0.90 + 0.07 * left
        for group, peak in zip(optimizer.param_groups, peaks, strict=True):
            group["lr"] = peak * share
            if is_muon(group):
                group["momentum"] = momentum
                group["weight_decay"] = decay * 0.5 * (1 + math.cos(math.pi * step / steps))

    return optimizer, apply


def _group(
    parameter: torch.Tensor, rate: float, betas: tuple[float, float], decay: float
) -> dict[str, object]:
    return {"params": [parameter], "lr": rate, "betas": betas, "weight_decay": decay}


MUON = Optimizer(kind="muon", learning_rate=2e-3, schedule="wsd", decay_share=0.4, final_share=0.05)
RECIPES = {
    "ours: AdamW, the default": Recipe(ours(Optimizer())),
    "ours: Muon": Recipe(ours(MUON)),
    "ours: Muon, z-loss 1e-4": Recipe(ours(MUON), "ours: Muon", z_loss=1e-4),
    "nanochat": Recipe(nanochat, clip=None),
    "torchtitan": Recipe(torchtitan),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("catalog", type=Path, help="for example that of configs/sample_small.toml")
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--factors", type=float, nargs="+", default=[1, 3, 9])
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    given = parser.parse_args()
    with ProcessPoolExecutor(given.jobs, get_context("spawn")) as pool:

        def losses(runs: list[tuple[str, float, int]]) -> list[float]:
            waiting = [pool.submit(run, given.catalog, given.steps, *one) for one in runs]
            found = []
            for one, future in zip(runs, waiting, strict=True):
                found.append(future.result())
                print(*one, f"{found[-1]:.4f}", flush=True)
            return found

        names = [name for name, recipe in RECIPES.items() if recipe.factor_of is None]
        grid = [(name, factor, TUNING_SEED) for name in names for factor in given.factors]
        rows = np.array(losses(grid)).reshape(len(names), -1)
        tuned = dict(zip(names, rows, strict=True))
        best = {
            name: given.factors[int(tuned[recipe.factor_of or name].argmin())]
            for name, recipe in RECIPES.items()
        }
        chosen = [(name, best[name], seed) for seed in range(given.seeds) for name in RECIPES]
        rows = np.array(losses(chosen)).reshape(given.seeds, -1).T
    compared = dict(zip(RECIPES, rows, strict=True))
    text = report(given.steps, given.factors, tuned, best, compared)
    (given.out / f"{today()}-recipes.md").write_text(text, encoding="utf-8")
    print(text)


def run(catalog: Path, steps: int, name: str, factor: float, seed: int) -> float:
    """Train with a recipe, and return the loss on held-out sequences in nats per token."""
    torch.set_num_threads(1)
    files, recipe = open_files(catalog), RECIPES[name]
    engine = build(files.manifest.tokenizer.vocabulary, files.end_of_text, recipe, seed)
    optimizer, apply = recipe.build(engine.model, steps, factor)
    corpus = Pool(open_tokens(files, "train"), TOKENS, "train")
    for step in range(steps):
        batch = corpus.read(*corpus.in_order(seed, "recipes", step * SEQUENCES, SEQUENCES))
        engine.clear()
        engine.backward(batch, regularised=True)
        if recipe.clip is not None:
            engine.clip(recipe.clip)
        apply(optimizer, step)
        optimizer.step()
    held_out = evaluation_set(
        "general", Pool(open_tokens(files, "heldout"), TOKENS, "heldout"), 256, 0
    )
    batch = held_out.pool.read(held_out.leaves, held_out.rows)
    return float(engine.losses(batch).double().sum()) / batch.total


def build(vocabulary: int, end_of_text: int, recipe: Recipe, seed: int) -> Engine:
    """Return the model with the initial weights of a seed."""
    config = Qwen3Config(
        vocab_size=vocabulary,
        hidden_size=WIDTH,
        intermediate_size=3 * WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=HEADS // 2,
        head_dim=WIDTH // HEADS,
        max_position_embeddings=TOKENS,
        tie_word_embeddings=False,
        eos_token_id=end_of_text,
    )
    torch.manual_seed(seed)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=torch.float32)  # type: ignore[no-untyped-call]
    model.train(mode=False)
    training = Training(sequence_tokens=TOKENS, z_loss=recipe.z_loss)
    return build_engine(model, training, Team())


def report(
    steps: int,
    factors: list[float],
    tuned: dict[str, np.ndarray],
    best: dict[str, float],
    compared: dict[str, np.ndarray],
) -> str:
    """Return the result as Markdown."""
    seeds = len(compared["nanochat"])

    def with_error(values: np.ndarray) -> str:
        return f"{values.mean():.4f} ± {values.std(ddof=1) / math.sqrt(seeds):.4f}"

    parameters = sum(p.numel() for p in build(1_024, 0, Recipe(torchtitan), 0).model.parameters())
    lines = [
        "# Our training recipes, nanochat's and torchtitan's on the same tokens",
        "",
        headline(),
        "",
        f"{parameters:,} parameters with a vocabulary of 1,024; {steps} steps of {SEQUENCES} "
        f"sequences of {TOKENS} tokens. Loss in nats per token on 256 held-out sequences.",
        "",
        f"Factors of the rates, seed {TUNING_SEED}:",
        "",
        "| recipe | " + " | ".join(f"x {factor:g}" for factor in factors) + " |",
        "|---" * (len(factors) + 1) + "|",
        *(
            f"| {name} | " + " | ".join(f"{loss:.4f}" for loss in row) + " |"
            for name, row in tuned.items()
        ),
        "",
        f"Best factor of each, {seeds} other seeds, mean and standard error; paired differences.",
        "",
        "| recipe | factor | loss | minus nanochat | minus torchtitan |",
        "|---|---|---|---|---|",
    ]
    others = [compared[name] for name in ("nanochat", "torchtitan")]
    for name, row in compared.items():
        differences = " | ".join(
            "" if row is other else with_error(row - other) for other in others
        )
        lines.append(f"| {name} | {best[name]:g} | {with_error(row)} | {differences} |")
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    main()
