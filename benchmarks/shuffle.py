"""Compare two versions of the sort by leaf: memory of a merge, openings of runs, and CPU time.

The number of parts doubles twice, with the same number of documents per part, so that the corpus
grows with it. The other version is that of the commit before runs were divided by range of leaves,
which is taken from the repository. The two sides run in turns, each in its own process, on the same
documents. Each merge has the leaves of one top-level domain, on the newer side in one range.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import process_time
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

BEFORE = "1c38d2e"
PARTS = (4, 8, 16)
LEAVES, SPAN, TOPS = 262_144, 4_096, 2  # of 64 top-level domains, two have documents
SIDES = ("before", "after")
DOCUMENT_BYTES = 1_500  # in memory, about
Merge = Callable[[Path], Any]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=20_000, help="documents per part")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--file-megabytes", type=int, default=4)
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)  # for the child processes
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        print(json.dumps(measure(arguments.side, arguments.folder, arguments.file_megabytes)))
        return
    from benchmarks.synthetic_documents import make_rows

    results: dict[int, dict[str, list[dict[str, float]]]] = {}
    for parts in PARTS:
        with TemporaryDirectory() as name:
            folder = Path(name)
            check_out(folder / "before")
            (folder / "in").mkdir()
            for part in range(parts):
                make_rows(folder / "in", part, arguments.rows, TOPS * SPAN)
            results[parts] = {side: [] for side in SIDES}
            for number in range(arguments.rounds):
                for side in SIDES if number % 2 == 0 else SIDES[::-1]:
                    results[parts][side].append(in_a_child(side, folder, arguments))
                    print(parts, side, results[parts][side][-1], flush=True)
    report(arguments, results)


def check_out(folder: Path) -> None:
    """Write the code of the older side to a folder."""
    folder.mkdir()
    archive = subprocess.run(
        ["git", "archive", BEFORE, "pipeline", "data_catalog"], capture_output=True, check=True
    )
    subprocess.run(["tar", "-x", "-C", str(folder)], input=archive.stdout, check=True)


def in_a_child(side: str, folder: Path, arguments: argparse.Namespace) -> dict[str, float]:
    root = folder / "before" if side == "before" else Path.cwd()
    same = [f"--side={side}", f"--folder={folder}", f"--file-megabytes={arguments.file_megabytes}"]
    done = subprocess.run(
        [sys.executable, __file__, *same],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(root.resolve())},
    )
    return dict(json.loads(done.stdout))


def measure(side: str, folder: Path, file_megabytes: int) -> dict[str, float]:
    """Sort and merge with the code of one side, and return its figures."""
    for name in ("runs", "out", "traced"):
        shutil.rmtree(folder / name, ignore_errors=True)
    sort = sort_before if side == "before" else sort_after
    started = process_time()
    merges = sort(folder, file_megabytes * 2**20)
    sorted_at = process_time()
    opened = count_openings()
    own_bytes = 0
    for number, merge in enumerate(merges):
        (folder / "out" / str(number)).mkdir(parents=True)
        before = len(opened)
        merge(folder / "out" / str(number))
        own_bytes += sum(Path(path).stat().st_size for path in set(opened[before:]))
    merged_at = process_time()
    figures = {
        "merges": len(merges),
        "openings": len(opened),
        "own_mb": own_bytes / len(merges) / 1e6,
        "files": len(list((folder / "out").glob("*/documents-*"))),
        "sort_seconds": sorted_at - started,
        "merge_seconds": merged_at - sorted_at,
    }
    (folder / "traced").mkdir()
    tracemalloc.start()  # NumPy's arrays: the index and the order of rows. The rows are Arrow's.
    merges[0](folder / "traced")
    return {**figures, "numpy_mb": tracemalloc.get_traced_memory()[1] / 1e6}


def count_openings() -> list[str]:
    """Return a list to which the name of each run is added when it is opened."""
    opened: list[str] = []
    memory_map = pa.memory_map

    def counted(path: str) -> Any:
        opened.append(path)
        return memory_map(path)

    pa.memory_map = counted
    return opened


def sort_before(folder: Path, file_bytes: int) -> list[Merge]:
    """Sort as `BEFORE` does, and return its merges, one per top-level domain."""
    runs, merging = (import_module(f"pipeline.shard.{name}") for name in ("sorted_runs", "merge"))
    parts = []
    for path in sorted((folder / "in").iterdir()):
        parts.append(folder / "runs" / path.stem)
        parts[-1].mkdir(parents=True)
        runs.write_runs(read_batches(path), parts[-1], file_bytes)

    def merge(top: int, out: Path) -> None:
        every_run = [runs.SortedRuns(part) for part in parts]
        merging.merge_runs(every_run, top * SPAN, (top + 1) * SPAN, out, file_bytes, top)

    return [partial(merge, top) for top in range(TOPS)]


def sort_after(folder: Path, file_bytes: int) -> list[Merge]:
    """Sort with a file per range, and return the merges, one per range and top-level domain."""
    runs, merging, planning = (
        import_module(f"pipeline.shard.{name}") for name in ("sorted_runs", "merge", "ranges")
    )
    inputs = sorted((folder / "in").iterdir())
    sizes = np.zeros(LEAVES, np.int64)
    for path in inputs:
        leaf = pq.read_table(path, columns=["leaf"])["leaf"].to_numpy()
        sizes += DOCUMENT_BYTES * np.bincount(leaf, minlength=LEAVES)
    bounds = planning.range_bounds(sizes, SPAN, planning.RANGE_FILES * file_bytes)
    parts = []
    for path in inputs:
        parts.append(folder / "runs" / path.stem)
        parts[-1].mkdir(parents=True)
        runs.write_runs(read_batches(path), parts[-1], file_bytes, bounds)

    def merge(number: int, out: Path) -> None:
        first, last = bounds[number : number + 2]
        every_run = [runs.SortedRuns(part, number, True) for part in parts]
        merging.merge_runs(every_run, first, last, out, file_bytes, first // SPAN)

    filled = [number for number in range(len(bounds) - 1) if bounds[number] < TOPS * SPAN]
    return [partial(merge, number) for number in filled]


def read_batches(path: Path) -> Iterator[pa.Table]:
    with pq.ParquetFile(path, pre_buffer=False) as file:
        for batch in file.iter_batches(4_096):
            yield pa.Table.from_batches([batch])


def report(
    arguments: argparse.Namespace, results: dict[int, dict[str, list[dict[str, float]]]]
) -> None:
    """Print the result and write it to `benchmarks/results`."""
    from benchmarks.hardware import headline, today

    rows = [
        "| parts | side | merges | stored files | openings of runs | sorted files of one merge, MB "
        "| NumPy memory of one merge, MB | CPU seconds of sort | CPU seconds of all merges |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for parts, sides in results.items():
        for side, rounds in sides.items():
            one = rounds[0]
            sort, merge = (
                median(found[f"{name}_seconds"] for found in rounds) for name in ("sort", "merge")
            )
            rows.append(
                f"| {parts} | {side} | {one['merges']} | {one['files']} | {one['openings']:,} "
                f"| {one['own_mb']:.1f} | {one['numpy_mb']:.2f} "
                f"| {sort:.2f} | {merge:.2f} |"
            )
    compared = []
    for parts, sides in results.items():
        ratios = [
            (older["sort_seconds"] + older["merge_seconds"])
            / (newer["sort_seconds"] + newer["merge_seconds"])
            for older, newer in zip(*(sides[side] for side in SIDES), strict=True)
        ]
        each = ", ".join(f"{ratio:.2f}" for ratio in ratios)
        compared.append(f"{parts} parts {median(ratios):.2f} ({each})")
    lines = [
        "# The sort by leaf, before and after ranges of leaves",
        headline(),
        f"Parts of {arguments.rows:,} documents in {TOPS} of 64 top-level domains and {LEAVES:,} "
        f"leaves, store.file_megabytes {arguments.file_megabytes}, {arguments.rounds} rounds, the "
        "two sides in turns. Memory is the peak that Python traces for NumPy in one merge, which "
        "excludes the rows.",
        "\n".join(rows),
        f"CPU time of sort and merges before, divided by that after, median (rounds): "
        f"{'; '.join(compared)}.",
    ]
    text = "\n\n".join(lines) + "\n"
    print(text)
    Path(f"benchmarks/results/{today()}-shuffle.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
