"""What measuring alignment costs a training run, and how good the scores are that it pays for.

Cost: plain steps and updates of every backend take turns in one process; a backend's cost is its update, with the target's gradient,
less the plain step that it replaces where the training batch itself is scored. Quality: scores against those of the exact backend on
sixteen times as many sequences, with the same target gradient, every backend being given as many sequences as make the work of a
forward pass equal (exact 3 a token, ghost on probes 4, finite differences 2, ghost on the training batch 1).
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

FORWARD_PASSES = {"exact": 3, "ghost": 4, "finite_difference": 2}  # a scored token, on probes
REFERENCE = 16  # times as many sequences
EVERY = (30, 100)  # steps between updates


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--catalog",
        type=Path,
        default=Path("catalogs/sample"),
        help="where there is none: a tiny synthetic one",
    )
    parser.add_argument("--target", help="None: the catalog's first")
    parser.add_argument(
        "--members", type=int, nargs="+", default=[22, 8], help="the first is the headline's"
    )
    parser.add_argument(
        "--levels",
        type=int,
        nargs="+",
        help="granularities of the basis; None: all of the catalog's",
    )
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--micro", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--basis-sequences", type=int, default=8)
    parser.add_argument("--target-sequences", type=int, default=32)
    parser.add_argument(
        "--trained", type=int, default=100, help="steps before anything is measured"
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument(
        "--draws", type=int, default=5, help="over which a backend's quality is averaged"
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
        levels = arguments.levels or read_manifest(root)["granularities"]
        text = [
            "# Measuring alignment: cost and quality",
            headline(),
            f"{arguments.preset} model ({sum(p.numel() for p in bench.engine.model.parameters()):,} parameters, {arguments.precision}, "
            f"{bench.engine.team.device.type}), batch {arguments.batch} x {arguments.tokens} tokens, {arguments.basis_sequences} sequences "
            f"a member, {arguments.target_sequences} of the target, after {arguments.trained} steps on {root.name}.",
            *cost(bench.with_basis(members(bench, levels[-1], arguments.members[0])), arguments),
            *quality(bench, levels, arguments),
        ]
    arguments.out.write_text("\n\n".join(text) + "\n", encoding="utf-8")
    print("\n\n".join(text))


def cost(bench: ScoredTraining, arguments: argparse.Namespace) -> list[str]:
    """Every side's milliseconds in turns, and the memory it needs beyond what a plain step does."""
    count, each = len(bench.inputs.basis.names), arguments.basis_sequences

    def plain() -> None:
        bench.step()

    def target(stage: int) -> Direction:
        return bench.direction(stage)

    def probes(backend: str, scores: str) -> Callable[[], None]:
        return lambda: void(bench.probes(backend, scores, each, target(1), 1))

    def batch(backend: SequenceBackend) -> Callable[[], None]:
        return lambda: void(bench.on_batches(bench.step(backend, target(1))))

    sides: dict[
        str, tuple[Callable[[], None], bool, str]
    ] = {  # what runs, whether it is also a step, gradients held beside the model's
        "target's gradient alone": (lambda: void(target(1)), False, "v"),
        "exact, probes, clipped": (probes("exact", "clipped"), False, "v and one"),
        "exact, probes, raw with errors": (probes("exact", "raw"), False, "v and one"),
        "finite difference, probes": (
            probes("finite_difference", "raw"),
            False,
            "v and a copy of the parameters",
        ),
        "finite difference, training batch": (
            batch("finite_difference"),
            True,
            "v and a copy of the parameters",
        ),
        "ghost, probes": (probes("ghost", "raw"), False, "v and one"),
        "ghost, training batch": (batch("ghost"), True, "v; the step's own"),
    }
    steps: list[tuple[float, float]] = []  # seconds, and megabytes at the peak
    updates: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
    for number in range(arguments.rounds + 1):
        order = list(sides.items()) if number % 2 else list(sides.items())[::-1]
        for name, (side, is_step, _) in order:
            step, update = (
                timed(plain, bench.engine.team.device),
                timed(side, bench.engine.team.device),
            )
            if number:  # the first round warms up
                steps.append(step)
                updates[name].append((update[0] - is_step * step[0], update[1]))
    step_seconds, step_peak = (median(column) for column in zip(*steps, strict=True))
    every = " | ".join(f"time a step, T_r = {every}" for every in EVERY)
    rows = [
        f"| update | ms | {every} | gradients held | peak memory, MB |",
        "|---" * (4 + len(EVERY)) + "|",
    ]
    for name, (_, _, held) in sides.items():
        seconds, peak = (median(column) for column in zip(*updates[name], strict=True))
        shares = " | ".join(f"+{100 * seconds / (every * step_seconds):.2f} %" for every in EVERY)
        rows.append(f"| {name} | {1000 * seconds:,.0f} | {shares} | {held} | {peak:,.0f} |")
    return [
        "## Cost",
        f"{count} members at {bench.inputs.basis.matrix.shape[1]} leaves. A plain step takes {1000 * step_seconds:.0f} ms (median of "
        f"{len(steps)}) and at its peak {step_peak:,.0f} MB more than there was before it. An update's time has the target's gradient in "
        "it; on the training batch it is what it adds to the step that ran just before.",
        "\n".join(rows),
    ]


def quality(bench: ScoredTraining, levels: list[int], arguments: argparse.Namespace) -> list[str]:
    """Scores against the reference's, at every granularity and number of members."""
    every = " | ".join(f"time a step, T_r = {every}" for every in EVERY)
    rows = [
        f"| k | N | scores | sequences | ms | error | rank correlation | {every} |",
        "|---" * (7 + len(EVERY)) + "|",
    ]
    step = median(timed(lambda: void(bench.step()), bench.engine.team.device)[0] for _ in range(5))
    for level in levels:
        for count in arguments.members:
            these = bench.with_basis(members(bench, level, count))
            rows += compared(these, level, step, arguments)
    return [
        "## Quality at equal work",
        f"Error: root mean square over members and {arguments.draws} draws, as a share of the reference scores' spread over the members. "
        "Rank correlation: Spearman's, with the reference, mean over draws. Time: the scores alone, the target's gradient not counted.",
        "\n".join(rows),
    ]


def compared(
    bench: ScoredTraining, level: int, step: float, arguments: argparse.Namespace
) -> list[str]:
    direction, each, count = (
        bench.direction(1),
        arguments.basis_sequences,
        len(bench.inputs.basis.names),
    )
    reference = bench.probes("exact", "raw", REFERENCE * each, direction, 10_000).scores
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

    def plainly(number: int) -> Callable[[int], None]:
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
        "ghost, one training batch": (batches(1), plainly(1), arguments.batch),
        f"ghost, {equal} training batches": (
            batches(equal),
            plainly(equal),
            equal * arguments.batch,
        ),
    }
    rows = []
    for name, (score, instead, sequences) in sides.items():
        found, seconds = [], []
        for draw in range(arguments.draws):
            started = perf_counter()
            found.append(score(100 + draw).scores)
            scored = perf_counter()
            if instead is not None:
                instead(draw)  # the backward passes that training runs anyway
            seconds.append(
                2 * scored - started - perf_counter() if instead is not None else scored - started
            )
        known = [
            np.where(np.isfinite(scores), scores, np.nanmean(scores)) for scores in found
        ]  # a mixer gives the unknown the mean
        error = float(
            np.sqrt(np.mean([(scores - reference) ** 2 for scores in known])) / reference.std()
        )
        rank = float(np.mean([spearmanr(scores, reference).statistic for scores in known]))
        shares = " | ".join(f"{100 * median(seconds) / (every * step):.2f} %" for every in EVERY)
        rows.append(
            f"| {level} | {count} | {name} | {sequences} | {1000 * median(seconds):,.0f} | {error:.2f} | {rank:.2f} | {shares} |"
        )
    return rows


if __name__ == "__main__":
    main()
