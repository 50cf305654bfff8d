"""Measure the cost of alignment in a training run, and the quality of its scores.

Cost: plain steps and updates of every backend run in turns in one process. The cost of a backend
is the time of its update, target gradient included. A backend that scores the training batch
replaces a plain step, whose time is subtracted.

Quality: the scores of a backend are compared with those of the exact backend on 16 times as many
sequences, with the same target gradient. Each backend gets the number of sequences that makes the
work equal, counted in forward passes per token: exact 3, ghost on probes 4, finite differences 2,
ghost on the training batch 1.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter

import numpy as np
import torch
from scipy.stats import spearmanr

from benchmarks.hardware import headline, today
from benchmarks.scored_training import ScoredTraining, members, prepare, timed, void
from data_catalog.format.manifest import read_manifest
from tests.helpers.tiny_catalog import write_tiny_catalog
from trainer.alignment import Alignment, Direction
from trainer.alignment.measure import SequenceBackend, backward_and_score

FORWARD_PASSES = {"exact": 3, "ghost": 4, "finite_difference": 2}  # per scored token, on probes
REFERENCE_FACTOR = 16  # sequences of the reference scores, relative to those of a backend
UPDATE_INTERVALS = (30, 100)  # steps between updates

# Gradients and copies that are held in addition to the gradient of the model.
GRADIENTS_HELD = {
    "target gradient alone": "v",
    "exact, probes, clipped": "v and one",
    "exact, probes, raw with errors": "v and one",
    "finite difference, probes": "v and a copy of the parameters",
    "finite difference, training batch": "v and a copy of the parameters",
    "ghost, probes": "v and one",
    "ghost, training batch": "v and those of the step",
}

INTERVAL_COLUMNS = " | ".join(f"time per step, T_r = {steps}" for steps in UPDATE_INTERVALS)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--catalog",
        type=Path,
        default=Path("catalogs/sample"),
        help="catalog to train on; a tiny synthetic one is used if it does not exist",
    )
    parser.add_argument("--target", help="default: the first target of the catalog")
    parser.add_argument(
        "--members",
        type=int,
        nargs="+",
        default=[22, 8],
        help="numbers of members; the first is used for the cost",
    )
    parser.add_argument(
        "--levels",
        type=int,
        nargs="+",
        help="granularities of the basis; default: all of the catalog",
    )
    parser.add_argument("--batch", type=int, default=64, help="sequences per step")
    parser.add_argument("--micro", type=int, default=64, help="sequences per forward pass")
    parser.add_argument("--tokens", type=int, default=128, help="tokens per sequence")
    parser.add_argument("--basis-sequences", type=int, default=8)
    parser.add_argument("--target-sequences", type=int, default=32)
    parser.add_argument(
        "--trained", type=int, default=100, help="training steps before the first measurement"
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument(
        "--draws", type=int, default=5, help="draws over which the quality is averaged"
    )
    parser.add_argument("--preset", default="tiny")
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--out", type=Path, default=Path(f"benchmarks/results/{today()}-alignment.md")
    )
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    with TemporaryDirectory() as folder:
        root = (
            arguments.catalog
            if arguments.catalog.is_dir()
            else write_tiny_catalog(Path(folder) / "catalog")
        )
        bench = prepare(root, arguments)
        levels = arguments.levels or list(read_manifest(root).granularities)
        text = [
            "# Measuring alignment: cost and quality",
            headline(),
            f"{arguments.preset} model "
            f"({sum(p.numel() for p in bench.engine.model.parameters()):,} parameters, "
            f"{arguments.precision}, {bench.engine.team.device.type}), "
            f"batch {arguments.batch} x {arguments.tokens} tokens, "
            f"{arguments.basis_sequences} sequences per member, "
            f"{arguments.target_sequences} sequences of the target, "
            f"after {arguments.trained} steps on {root.name}.",
            *cost(bench.with_basis(members(bench, levels[-1], arguments.members[0])), arguments),
            *quality(bench, levels, arguments),
        ]
    arguments.out.write_text("\n\n".join(text) + "\n", encoding="utf-8")
    print("\n\n".join(text))


def update_kinds(bench: ScoredTraining, each: int) -> dict[str, tuple[Callable[[], None], bool]]:
    """Return for each kind of update a function, and whether it includes a training step.

    Args:
        bench: the training.
        each: sequences per member.
    """

    def target(stage: int) -> Direction:
        return bench.direction(stage)

    def probes(backend: str, scores: str) -> Callable[[], None]:
        return lambda: void(bench.probes(backend, scores, each, target(1), 1))

    def batch(backend: SequenceBackend) -> Callable[[], None]:
        return lambda: void(bench.on_batches(bench.step(backend, target(1))))

    return {
        "target gradient alone": (lambda: void(target(1)), False),
        "exact, probes, clipped": (probes("exact", "clipped"), False),
        "exact, probes, raw with errors": (probes("exact", "raw"), False),
        "finite difference, probes": (probes("finite_difference", "raw"), False),
        "finite difference, training batch": (batch("finite_difference"), True),
        "ghost, probes": (probes("ghost", "raw"), False),
        "ghost, training batch": (batch("ghost"), True),
    }


def time_updates(
    bench: ScoredTraining, each: int, rounds: int
) -> tuple[list[tuple[float, float]], dict[str, list[tuple[float, float]]]]:
    """Return seconds and peak megabytes of plain steps, and of every kind of update.

    They run in turns. The time of a plain step is subtracted from an update that includes one.

    Args:
        bench: the training.
        each: sequences per member.
        rounds: measurements of each kind, after one that warms up.
    """
    kinds, device = update_kinds(bench, each), bench.engine.team.device
    steps: list[tuple[float, float]] = []
    updates: dict[str, list[tuple[float, float]]] = {name: [] for name in kinds}
    for number in range(rounds + 1):
        order = list(kinds.items()) if number % 2 else list(kinds.items())[::-1]
        for name, (update, is_step) in order:
            step, (seconds, peak) = (
                timed(lambda: void(bench.step()), device),
                timed(update, device),
            )
            if number:  # the first round warms up
                steps.append(step)
                updates[name].append((seconds - is_step * step[0], peak))
    return steps, updates


def cost(bench: ScoredTraining, arguments: argparse.Namespace) -> list[str]:
    """Return the section with the time and the peak memory of each kind of update."""
    steps, updates = time_updates(bench, arguments.basis_sequences, arguments.rounds)
    count = len(bench.inputs.basis.names)
    step_seconds, step_peak = (median(column) for column in zip(*steps, strict=True))
    rows = [
        f"| update | ms | {INTERVAL_COLUMNS} | gradients held | peak memory, MB |",
        "|---" * (4 + len(UPDATE_INTERVALS)) + "|",
    ]
    for name, held in GRADIENTS_HELD.items():
        seconds, peak = (median(column) for column in zip(*updates[name], strict=True))
        shares = " | ".join(
            f"+{100 * seconds / (interval * step_seconds):.2f} %" for interval in UPDATE_INTERVALS
        )
        rows.append(f"| {name} | {1000 * seconds:,.0f} | {shares} | {held} | {peak:,.0f} |")
    return [
        "## Cost",
        f"{count} members at {bench.inputs.basis.matrix.shape[1]} leaves. A plain step takes "
        f"{1000 * step_seconds:.0f} ms (median of {len(steps)}) and {step_peak:,.0f} MB at its "
        "peak, in addition to the memory in use before it. The time of an update includes the "
        "target gradient. On the training batch, it is the time that the update adds to the "
        "preceding plain step.",
        "\n".join(rows),
    ]


def quality(bench: ScoredTraining, levels: list[int], arguments: argparse.Namespace) -> list[str]:
    """Return the section that compares scores with the reference per level and member count."""
    rows = [
        f"| k | N | scores | sequences | ms | error | rank correlation | {INTERVAL_COLUMNS} |",
        "|---" * (7 + len(UPDATE_INTERVALS)) + "|",
    ]
    step = median(timed(lambda: void(bench.step()), bench.engine.team.device)[0] for _ in range(5))
    for level in levels:
        for count in arguments.members:
            with_members = bench.with_basis(members(bench, level, count))
            rows += quality_rows(with_members, level, step, arguments)
    return [
        "## Quality at equal work",
        f"Error: root mean square over members and {arguments.draws} draws, divided by the "
        "standard deviation of the reference scores over the members. Rank correlation: Spearman's "
        "correlation with the reference, averaged over draws. Time: the scores alone, without the "
        "target gradient.",
        "\n".join(rows),
    ]


def quality_rows(
    bench: ScoredTraining, level: int, step: float, arguments: argparse.Namespace
) -> list[str]:
    """Return the table rows of one level and one basis. `step` is the seconds of a plain step."""
    direction, each, count = (
        bench.direction(1),
        arguments.basis_sequences,
        len(bench.inputs.basis.names),
    )
    reference = bench.probes("exact", "raw", REFERENCE_FACTOR * each, direction, 10_000).scores
    work = count * each * FORWARD_PASSES["exact"]

    def probes(backend: str) -> Callable[[int], Alignment]:
        sequences = max(round(work / count / FORWARD_PASSES[backend]), 1)
        return lambda stage: bench.probes(backend, "raw", sequences, direction, stage)

    def batches(number: int) -> Callable[[int], Alignment]:
        def score(_: int) -> Alignment:
            scored = []
            for _ in range(number):
                bench.engine.clear()
                leaves, batch = bench.draw()
                scored.append(
                    backward_and_score(bench.engine, direction, batch, leaves, "ghost")[1]
                )
            return bench.on_batches(scored)

        return score

    def backward_passes(number: int) -> Callable[[int], None]:
        def run(_: int) -> None:
            for _ in range(number):
                bench.engine.clear()
                bench.engine.backward(bench.draw()[1])

        return run

    equal = max(round(work / arguments.batch), 1)
    sides: dict[str, tuple[Callable[[int], Alignment], Callable[[int], None] | None, int]] = {
        "exact, probes": (probes("exact"), None, each * count),
        "finite difference, probes": (
            probes("finite_difference"),
            None,
            work // FORWARD_PASSES["finite_difference"],
        ),
        "ghost, probes": (probes("ghost"), None, work // FORWARD_PASSES["ghost"]),
        "ghost, one training batch": (batches(1), backward_passes(1), arguments.batch),
        f"ghost, {equal} training batches": (
            batches(equal),
            backward_passes(equal),
            equal * arguments.batch,
        ),
    }
    rows = []
    for name, (score, replaced, sequences) in sides.items():
        drawn, seconds = [], []
        for draw in range(arguments.draws):
            started = perf_counter()
            drawn.append(score(100 + draw).scores)
            scored = perf_counter()
            if replaced is not None:
                replaced(draw)  # the backward passes that training runs in any case
            seconds.append(
                2 * scored - started - perf_counter() if replaced is not None else scored - started
            )
        # Unknown scores are replaced with the mean, as in the mixers.
        known = [np.where(np.isfinite(scores), scores, np.nanmean(scores)) for scores in drawn]
        error = float(
            np.sqrt(np.mean([(scores - reference) ** 2 for scores in known])) / reference.std()
        )
        rank = float(np.mean([spearmanr(scores, reference).statistic for scores in known]))
        shares = " | ".join(
            f"{100 * median(seconds) / (interval * step):.2f} %" for interval in UPDATE_INTERVALS
        )
        rows.append(
            f"| {level} | {count} | {name} | {sequences} | {1000 * median(seconds):,.0f} "
            f"| {error:.2f} | {rank:.2f} | {shares} |"
        )
    return rows


if __name__ == "__main__":
    main()
