"""Measure the data plane at 262,144 leaves: opening, planning an interval and reading batches.

The rates are compared with the training speed of the tiny preset and with other readers. All
readers return the same sequences in the same order, 512 tokens each, with inputs and labels as
int64 tensors.
"""

import argparse
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import TypeVar

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from benchmarks.hardware import headline, today
from data_catalog.format import tables
from data_catalog.format.files import CatalogFiles
from data_catalog.format.layout import Layout, Levels
from data_catalog.format.tokens import TokenStore, open_tokens, write_tokens
from tests.helpers.manifests import tiny_files
from trainer.config import Data, Model, Training
from trainer.model.loss import LanguageLoss
from trainer.model.model import build_model
from trainer.sampling.batches import Pool, interval_batches
from trainer.sampling.bounds import DrawBounds, build_bounds
from trainer.sampling.plan import Draws, IntervalPlan, draw_interval

TOPS, LENGTH, VOCABULARY, BATCH = 64, 512, 32_000, 64
Pairs = Iterable[tuple[Tensor, Tensor]]
Result = TypeVar("Result")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--leaves", type=int, default=262_144)
    parser.add_argument("--leaf-tokens", type=int, default=1_200, help="average tokens per leaf")
    parser.add_argument("--steps", type=int, default=100, help="steps of 64 sequences per interval")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--threads",
        type=int,
        default=2,
        help="threads of the trainer, and workers of the torch DataLoader",
    )
    parser.add_argument(
        "--folder",
        type=Path,
        default=Path(),
        help="folder for temporary files; needs 4 bytes per token",
    )
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    levels = Levels((TOPS, arguments.leaves))
    with TemporaryDirectory(dir=arguments.folder) as name:
        root = Path(name)
        write_store(root, levels, arguments.leaf_tokens)
        opening = [timed(partial(open_pool, root, levels))[0] for _ in range(arguments.rounds)]
        pool = open_pool(root, levels)
        planning = [
            plan_times(pool, draws, arguments.rounds)
            for draws in (arguments.steps * BATCH, 4 * arguments.steps * BATCH)
        ]
        reading = read_rates(pool, root, arguments)
    report(arguments, opening, planning, reading, trainer_rate(), pool)


def write_store(root: Path, levels: Levels, leaf_tokens: int) -> None:
    """Write a token store in which a leaf holds 0.5 to 1.5 times the mean number of tokens."""
    random = np.random.Generator(np.random.Philox(key=17))
    layout, span, parts = Layout(root, 1), levels.span(TOPS), []
    layout.tables.mkdir(parents=True)
    for top in range(TOPS):
        sizes = random.integers(leaf_tokens // 2, leaf_tokens * 3 // 2, span)
        ends = np.r_[0, np.cumsum(sizes)]
        layout.tokens(top).parent.mkdir(parents=True)
        values = random.integers(0, VOCABULARY, int(ends[-1])).astype(np.uint16)
        write_tokens(
            layout.tokens(top), pa.LargeListArray.from_arrays(pa.array(ends), pa.array(values))
        )
        same = {
            "top": np.full(span, top),
            "part": np.zeros(span, int),
            "rows": np.ones(span, int),
            "split": ["train"] * span,
        }
        made = {
            "leaf": np.arange(top * span, (top + 1) * span),
            "first_row": np.arange(span),
            "first_token": ends[:-1],
            "tokens": sizes,
        }
        parts.append(pa.table({**same, **made}).select(tables.OFFSETS.names).cast(tables.OFFSETS))
    pq.write_table(pa.concat_tables(parts), layout.offsets)


def stand_in(root: Path, levels: Levels) -> CatalogFiles:
    """Return the files of a store that has no manifest."""
    return tiny_files(root, granularities=list(levels.granularities))


def open_pool(root: Path, levels: Levels) -> Pool:
    return Pool(open_tokens(stand_in(root, levels), "train"), LENGTH, "the benchmark")


def plan_times(pool: Pool, draws: int, rounds: int) -> dict[str, float]:
    """Return microseconds per draw: without bounds, and with loose and tight (projected) bounds."""
    leaves = len(pool.sequences)
    skewed = np.random.Generator(np.random.Philox(key=19)).random(leaves) ** 8
    bounds = partial(
        build_bounds,
        Data(max_epochs=1.0),
        pool.sequences,
        pool.sequences > 0,
        level=leaves,
        length=LENGTH,
    )
    loose, tight = bounds(draws=draws), bounds(draws=pool.total * 3 // 4)
    cases: list[tuple[str, np.ndarray, DrawBounds | None]] = [
        ("free", pool.sequences / pool.total, None),
        ("bounds that do not bind", pool.sequences / pool.total, loose),
        ("bounds that bind", skewed, tight),
    ]
    used = np.zeros(leaves, np.int64)
    microseconds: dict[str, float] = {"draws": draws}
    for name, weights, bound in cases:
        times = [
            timed(
                partial(
                    draw_interval,
                    stage,
                    weights,
                    pool.sequences,
                    used,
                    draws=draws,
                    seed=0,
                    bounds=bound,
                )
            )[0]
            for stage in range(rounds)
        ]
        microseconds[name] = median(times) / draws * 1e6
    return microseconds


def read_rates(pool: Pool, root: Path, arguments: argparse.Namespace) -> dict[str, float]:
    """Return the sequences per second of each reader, as medians over rounds run in turns.

    A round reads the batches of one interval from the page cache of the system.
    """
    draws = arguments.steps * BATCH
    weights, used = pool.sequences / pool.total, np.zeros(len(pool.sequences), np.int64)
    plan = draw_interval(0, weights, pool.sequences, used, draws=draws, seed=0)
    whole = plan.read()
    rows = save_rows(pool, whole, root / "rows")
    readers: dict[str, Callable[[], Pairs]] = {
        f"interval_batches, {count} {'worker' if count == 1 else 'workers'}": partial(
            read_batches, pool, plan, arguments.steps, count
        )
        for count in (1, arguments.threads)
    }
    readers["a plain loop over sequences"] = partial(plain_loop, pool.store, whole)
    readers[f"torch DataLoader, {arguments.threads} workers"] = partial(
        torch_loader, pool, whole, arguments.threads
    )
    readers["datasets, memory-mapped rows, torch format"] = partial(datasets_rows, rows)
    expected = checksum(readers["a plain loop over sequences"]())
    times: dict[str, list[float]] = {name: [] for name in readers}
    for _ in range(arguments.rounds):
        for name, read in readers.items():
            seconds, result = timed(lambda read=read: checksum(read()))  # type: ignore[misc]
            assert result == expected, name
            times[name].append(seconds)
    return {name: draws / median(seconds) for name, seconds in times.items()}


def read_batches(
    pool: Pool, plan: IntervalPlan, steps: int, workers: int
) -> Iterator[tuple[Tensor, Tensor]]:
    for batch in interval_batches(
        pool, plan, range(steps), batch_sequences=BATCH, rank=0, world=1, workers=workers, ahead=4
    ):
        yield batch.inputs, batch.labels


def plain_loop(store: TokenStore, draws: Draws) -> Iterator[tuple[Tensor, Tensor]]:
    """Read each sequence, make two tensors, and stack them: the obvious implementation."""
    for first in range(0, len(draws.leaves), BATCH):
        chosen = zip(
            draws.leaves[first : first + BATCH], draws.rows[first : first + BATCH], strict=True
        )
        pairs = [one_sequence(store, int(leaf), int(row)) for leaf, row in chosen]
        yield (
            torch.stack([inputs for inputs, _ in pairs]),
            torch.stack([labels for _, labels in pairs]),
        )


def one_sequence(store: TokenStore, leaf: int, row: int) -> tuple[Tensor, Tensor]:
    first = int(store.first_token[leaf]) + row * LENGTH
    last = min(first + LENGTH + 1, int(store.first_token[leaf] + store.tokens[leaf]))
    window = torch.tensor(store.files[int(store.file[leaf])][first:last].astype(np.int64))
    inputs, labels = torch.full((LENGTH,), store.pad), torch.full((LENGTH,), -100)
    inputs[: len(window) - 1], labels[: len(window) - 1] = window[:-1], window[1:]
    return inputs, labels


class Sequences(torch.utils.data.Dataset[tuple[Tensor, Tensor]]):
    """The sequences of a plan, in the order of its draws."""

    def __init__(self, store: TokenStore, draws: Draws) -> None:
        self.store, self.draws = store, draws

    def __len__(self) -> int:
        return len(self.draws.leaves)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return one_sequence(self.store, int(self.draws.leaves[index]), int(self.draws.rows[index]))


def torch_loader(pool: Pool, draws: Draws, workers: int) -> Pairs:
    """Return a torch DataLoader over the draws. A new plan requires new workers per interval."""
    return torch.utils.data.DataLoader(
        Sequences(pool.store, draws), batch_size=BATCH, num_workers=workers
    )


def save_rows(pool: Pool, draws: Draws, folder: Path) -> Path:
    """Save the sequences of the plan as shuffled rows of a dataset, with the row of each draw."""
    inputs, labels = pool.store.read(draws.leaves, draws.rows, LENGTH)
    place = np.random.Generator(np.random.Philox(key=23)).permutation(len(inputs))
    table = {
        name: pa.FixedSizeListArray.from_arrays(pa.array(values[place].reshape(-1)), LENGTH)
        for name, values in (("inputs", inputs), ("labels", labels))
    }
    datasets.disable_progress_bars()
    datasets.Dataset(pa.table(table)).save_to_disk(str(folder))
    np.save(folder / "order.npy", np.argsort(place))
    return folder


def datasets_rows(folder: Path) -> Iterator[tuple[Tensor, Tensor]]:
    order, rows = (
        np.load(folder / "order.npy"),
        datasets.load_from_disk(str(folder)).with_format("torch"),
    )
    for first in range(0, len(order), BATCH):
        batch = rows[order[first : first + BATCH]]
        yield batch["inputs"], batch["labels"]


def trainer_rate() -> float:
    """Return the sequences per second of training steps of the tiny preset.

    A step has a forward pass, a backward pass and an AdamW update. The median of five is returned.
    """
    training = Training(sequence_tokens=LENGTH)
    loss = LanguageLoss(build_model(Model(), VOCABULARY, 0, LENGTH, 0), training.precision)
    optimizer, tokens, times = (
        torch.optim.AdamW(loss.parameters()),
        torch.randint(0, VOCABULARY, (16, LENGTH)),
        [],
    )
    for _ in range(6):
        started = perf_counter()
        loss(tokens, tokens).total.div(tokens.numel()).backward()
        optimizer.step()
        optimizer.zero_grad()
        times.append(perf_counter() - started)
    return len(tokens) / median(times[1:])


def checksum(pairs: Pairs) -> int:
    """Return a checksum that reads every batch."""
    return sum(
        int(inputs.sum()) * number + int(labels.sum())
        for number, (inputs, labels) in enumerate(pairs, start=1)
    )


def timed(work: Callable[[], Result]) -> tuple[float, Result]:
    started = perf_counter()
    result = work()
    return perf_counter() - started, result


def report(
    arguments: argparse.Namespace,
    opening: list[float],
    planning: list[dict[str, float]],
    reading: dict[str, float],
    rate: float,
    pool: Pool,
) -> None:
    cases = [name for name in planning[0] if name != "draws"]
    plans = [
        "| microseconds per draw | "
        + " | ".join(f"{case['draws']:,} draws" for case in planning)
        + " |",
        "|---|" + "---|" * len(planning),
    ]
    plans += [
        f"| {name} | " + " | ".join(f"{times[name]:.2f}" for times in planning) + " |"
        for name in cases
    ]
    first = next(iter(reading.values()))
    reads = [
        "| | sequences/s | tokens/s | relative to the trainer | speed of interval_batches |",
        "|---|---|---|---|---|",
    ]
    reads += [
        f"| {name} | {speed:,.0f} | {speed * LENGTH / 1e6:,.1f} M | {speed / rate:,.0f} "
        f"| {first / speed:.1f} times as fast |"
        for name, speed in reading.items()
    ]
    lines = [
        "# The data plane",
        headline(),
        f"{arguments.leaves:,} leaves in {TOPS} memory-mapped files with "
        f"{int(pool.store.tokens.sum()) / 1e6:,.0f} M tokens in total, {pool.total:,} sequences of "
        f"{LENGTH}. An interval has {arguments.steps} batches of {BATCH} sequences. "
        f"Medians of {arguments.rounds} rounds in turns.",
        f"Opening the catalog's tokens: {median(opening):.2f} s. "
        f"The state of the stream, one counter per leaf: "
        f"{8 * len(pool.sequences) / 2**20:.1f} MiB.",
        "\n".join(plans),
        "A part of this time is fixed per interval: it depends on the number of leaves, "
        f"{arguments.leaves:,}, and not on the number of draws.",
        "\n".join(reads),
        f"The trainer is the tiny preset with vocabulary {VOCABULARY:,}, fp32 and "
        f"{arguments.threads} threads: {rate:,.1f} sequences/s.",
    ]
    text = "\n\n".join(lines) + "\n"
    print(text)
    Path(f"benchmarks/results/{today()}-data-plane.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
