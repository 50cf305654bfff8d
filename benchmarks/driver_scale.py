"""Measure the memory that one stage of a build takes in the driver.

The driver's own code plans the stage, gets each finished part as Ray delivers it (unpickled), lists
the parts for the next stage and adds their accounts. A stand-in for the workers answers at once and
writes nothing. Each number of parts is measured in a process of its own. A second table has
the memory of what a part consists of.
"""

import argparse
import json
import pickle
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from time import process_time
from typing import Any

import psutil

from benchmarks.hardware import headline, today
from data_catalog.format.accounts import Account, Tally, total
from pipeline.engine.needs import largest_first
from pipeline.part_list import list_parts
from pipeline.parts import Part

PIECES = 10_000  # of each kind whose memory is measured


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parts", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--out", type=Path, help="folder of the result; default: print it")
    parser.add_argument("--measure", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        sys.stdout.write(json.dumps(run_stage(arguments.measure)))
        return
    rows = ["| parts | plan | collect | list | add accounts | memory | per part |"]
    rows += ["|---|---|---|---|---|---|---|"]
    for parts in arguments.parts:
        command = [sys.executable, "-m", "benchmarks.driver_scale", "--measure", str(parts)]
        seconds, used = json.loads(subprocess.check_output(command, text=True))
        cells = " | ".join(f"{value:.2f} s" for value in seconds)
        rows.append(f"| {parts:,} | {cells} | {used / 2**20:,.0f} MiB | {used / parts:,.0f} B |")
    rows += ["", "| piece | bytes per part |", "|---|---|"]
    rows += [f"| {name} | {size:,.0f} |" for name, size in pieces()]
    text = f"# Memory of the driver per part of one stage\n\n{headline()}\n\n" + "\n".join(rows)
    if arguments.out:
        (arguments.out / f"{today()}-driver-scale.md").write_text(text + "\n", encoding="utf-8")
    else:
        sys.stdout.write(text + "\n")


def run_stage(parts: int) -> tuple[list[float], int]:
    """Run one stage. Return the processor seconds of its steps and the bytes that it has added."""
    process, seconds = psutil.Process(), []
    before, last = process.memory_info().rss, process_time()

    def step() -> None:
        nonlocal last
        seconds.append(process_time() - last)
        last = process_time()

    with TemporaryDirectory() as name:
        work = Path(name)
        calls: Sequence[tuple[Any, ...]] = [(work / "stage" / part_name(i),) for i in range(parts)]
        order = largest_first(calls)
        step()
        done = {number: delivered(*calls[number]) for number in order}
        made = [done[number] for number in range(parts)]
        step()
        list_parts(made, work / "list")
        step()
        assert total(part.account for part in made).read.rows == parts
        step()
    return seconds, process.memory_info().rss - before


def part_name(number: int) -> str:
    return f"part-{number:07d}"


def delivered(folder: Path) -> Part:
    """Return a finished part as it arrives from another process."""
    part: Part = pickle.loads(pickle.dumps(Part(folder, fingerprint(folder), account(), 0.5)))
    return part


def fingerprint(folder: Path) -> str:
    return sha256(folder.name.encode()).hexdigest()


def account() -> Account:
    tally = Tally(rows=1, characters=10)
    return Account(read=tally, kept=tally, dropped={"copy": Tally()})


def pieces() -> list[tuple[str, float]]:
    """Return the bytes of each piece of a part, and of the whole part."""
    folder = Path("/work/catalog/work/stage")

    def copied(value: object) -> Any:
        return pickle.loads(pickle.dumps(value))

    kinds: dict[str, Callable[[int], object]] = {
        "folder": lambda i: copied(folder / part_name(i)),
        "fingerprint": lambda i: fingerprint(folder / part_name(i)),
        "account": lambda _: copied(account()),
        "of which one tally": lambda _: copied(Tally(rows=1, characters=10)),
        "whole part": lambda i: delivered(folder / part_name(i)),
    }
    return [(name, traced(make)) for name, make in kinds.items()]


def traced(make: Callable[[int], object]) -> float:
    """Return the bytes that an object takes, on average over many."""
    make(0)
    kept: list[object] = [None] * PIECES
    tracemalloc.start()
    for number in range(PIECES):
        kept[number] = make(number)
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return size / PIECES


if __name__ == "__main__":
    main()
