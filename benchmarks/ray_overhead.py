"""Measure what Ray costs per part: processor time of all its processes, and the driver's memory.

The parts are as small as parts can be: one file of a few bytes and its sidecar. The same parts in a
plain loop cost what remains. Memory is that of the driver after each number of parts.
"""

import argparse
import resource
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from time import process_time
from typing import Any

import psutil

from benchmarks.hardware import headline, today
from data_catalog.format.accounts import Account, Tally
from pipeline.config import Build
from pipeline.engine.cluster import connected
from pipeline.engine.config import Cluster
from pipeline.parts import Part, make_part
from pipeline.run import one_by_one

MEBIBYTE = 2**20


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parts", type=int, nargs="+", default=[500, 1_000, 2_000, 4_000])
    parser.add_argument("--out", type=Path, help="folder of the result; default: print it")
    arguments = parser.parse_args()
    with TemporaryDirectory() as folder:
        text = f"# Overhead of Ray per part\n\n{headline()}\n\n{measure(Path(folder), arguments)}\n"
    if arguments.out:
        (arguments.out / f"{today()}-ray-overhead.md").write_text(text, encoding="utf-8")
    else:
        sys.stdout.write(text)


def measure(root: Path, arguments: argparse.Namespace) -> str:
    """Return the table as Markdown."""
    rows = ["| parts | plain loop | Ray, driver | Ray, all processes | driver's memory |"]
    rows += ["|---|---|---|---|---|"]
    source = {"kind": "text", "path": str(root)}
    config = Build.model_validate({"source": source, "out": root / "catalog"})
    with connected(Cluster(workers=2), root / "work", config, config.embed) as stages:
        run = partial(run_parts, stages)
        run(root / "warm", 100)  # the workers import their modules
        for parts in arguments.parts:
            plain, _ = run_parts(one_by_one, root / f"plain-{parts}", parts)
            driver, everything = run(root / f"ray-{parts}", parts)
            memory = psutil.Process().memory_info().rss
            rows.append(
                f"| {parts:,} | {plain * 1e3:.2f} ms | {driver * 1e3:.2f} ms "
                f"| {everything * 1e3:.2f} ms | {memory / MEBIBYTE:,.0f} MiB |"
            )
    return "\n".join(rows)


def run_parts(each: Callable[..., list[Part]], folder: Path, parts: int) -> tuple[float, float]:
    """Make parts. Return the processor time per part, of this process and of all, in seconds."""
    calls: Sequence[tuple[Any, ...]] = [(folder / f"part-{i:05d}",) for i in range(parts)]
    own, everything = process_time(), all_seconds()
    made = each("overhead", make_small_part, calls)
    own, everything = process_time() - own, all_seconds() - everything
    assert [part.place for part in made] == [place for (place,) in calls]
    return own / parts, everything / parts


def make_small_part(folder: Path) -> Part:
    def make(temporary: Path) -> Account:
        (temporary / "rows").write_text("a few bytes", encoding="utf-8")
        tally = Tally(rows=1, characters=10)
        return Account(read=tally, kept=tally)

    return make_part(folder, "fingerprint", make)


def all_seconds() -> float:
    """Return the processor time of this process and of all processes that it has started."""
    children = psutil.Process().children(recursive=True)
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)  # those that have ended
    total = process_time() + usage.ru_utime + usage.ru_stime
    for child in children:
        try:
            times = child.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system
    return total


if __name__ == "__main__":
    main()
