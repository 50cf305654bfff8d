"""Lines that `train` prints at the end: losses, gain over the natural mixture, final weights."""

import math
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console

from data_catalog.errors import UserError
from data_catalog.transfer.run_copy import local_run
from flows.cli.summary import cut_for_terminal
from flows.pages.run.data import read_run
from flows.pages.run.run_folder import GENERAL, TEST, VALIDATION, Measurement, RunFolder, number
from trainer.config import Train

MAXIMUM_MEMBERS = 4  # in the line of weights
MINIMUM_WEIGHT = 0.01
# Settings that a run with the natural mixture must share to be compared.
_SHARED_SECTIONS = ("model", "training", "optimizer", "data")


def print_run(config: Train) -> None:
    """Print the results of a finished run, and the path of its page."""
    console = Console()
    with local_run(config.out) as folder:
        for line in run_lines(folder):
            console.print(line, highlight=False, markup=False, soft_wrap=True)
    console.print(f"Report: {config.out / 'report.html'}", highlight=False, soft_wrap=True)


def run_lines(folder: Path) -> list[str]:
    """Return sentences on the results of the run in a folder.

    Raises:
        UserError: The folder contains no run.
    """
    run = read_run(folder, folder.name)
    last = {**(run.of_kind("train") or [{}])[-1], **(run.final or {})}
    steps, tokens = (int(number(last, key) or 0) for key in ("step", "tokens"))
    return [
        f"{folder.name}: {int(number(last, 'steps') or steps):,} steps, {tokens:,} tokens, "
        f"mixer {run.mixer}",
        *_losses(run),
        *_gain(run),
        *_weights(run),
    ]


def _losses(run: RunFolder) -> Iterator[str]:
    named = [
        (f"Loss on the target {run.target}", _last(run, TEST) or _last(run, VALIDATION)),
        ("Loss on general text", _last(run, GENERAL)),
    ]
    for name, measured in named:
        if measured is not None:
            bits = "" if measured.bits is None else f", {measured.bits:.3f} bits per byte"
            yield f"{name}: {_value(measured)} nats per token{bits}"


def _gain(run: RunFolder) -> Iterator[str]:
    """Yield the difference to a run beside this one with the natural mixture, if there is one."""
    if run.mixer == "natural":
        return
    for folder in sorted(run.folder.parent.iterdir()):
        try:
            other = read_run(folder, folder.name) if (folder / "model").is_dir() else None
        except UserError:
            continue
        if other is None or other.mixer != "natural" or not _comparable(run, other):
            continue
        for name, held_out in ((f"target {run.target}", TEST), ("general text", GENERAL)):
            ours, theirs = _last(run, held_out), _last(other, held_out)
            if ours is not None and theirs is not None:
                error = math.hypot(ours.error or 0.0, theirs.error or 0.0)
                yield (
                    f"Compared with {other.label} (natural), {name}: "
                    f"{ours.loss - theirs.loss:+.3f} +- {error:.3f} nats per token"
                )
        return


def _comparable(run: RunFolder, other: RunFolder) -> bool:
    """Return whether two runs differ in their mixture and seed only."""
    return (
        run.target == other.target
        and run.about.get("catalog") == other.about.get("catalog")
        and all(run.config.get(key) == other.config.get(key) for key in _SHARED_SECTIONS)
    )


def _weights(run: RunFolder) -> Iterator[str]:
    if run.weights is None or len(run.basis) < 2:
        return
    final = run.weights.sampling[-1]
    order = (-final).argsort(kind="stable")[:MAXIMUM_MEMBERS].tolist()
    shown = [
        f"{final[i]:.0%} {cut_for_terminal(run.basis[i], 40)}"
        for i in order
        if final[i] >= MINIMUM_WEIGHT
    ]
    rest = len(run.basis) - len(shown)
    more = f", and {rest} others" if rest else ""
    yield f"Final mixture: {', '.join(shown)}{more}"


def _last(run: RunFolder, held_out: str) -> Measurement | None:
    points = run.losses(held_out)
    return points[-1] if points else None


def _value(measured: Measurement) -> str:
    error = "" if measured.error is None else f" +- {measured.error:.3f}"
    return f"{measured.loss:.3f}{error}"
