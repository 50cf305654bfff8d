"""Compare the store with DuckDB: sort and write the same rows by leaf, then read single domains.

The two sides run in turns with the same number of threads, each in its own process. The memory of
a side is the memory that the system reports for its process. Each read returns one of 4,096
domains.
"""

import argparse
import json
import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter

import duckdb
import numpy as np
import pyarrow.parquet as pq

from benchmarks.hardware import headline, today
from benchmarks.synthetic_documents import LEVELS, make_rows, read_batches
from data_catalog.format import tables
from data_catalog.format.accounts import Account
from data_catalog.format.offsets import read_offsets
from data_catalog.query.read_domain import read_domain
from pipeline.parts import Part
from pipeline.publish.link_files import link_file, number_files, stored_offsets
from pipeline.shard.merge import merge_runs
from pipeline.shard.ranges import RANGE_FILES, Ranges, TopRange, range_bounds
from pipeline.shard.sorted_runs import SortedRuns, write_runs
from pipeline.shard.stage import OFFSETS_FILE, document_files
from tests.helpers.manifests import tiny_files

PART_ROWS = 100_000  # per input file
READS = 200  # of one domain each
SIDES = ("clustermix", "duckdb")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=4_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--file-megabytes", type=int, default=256)
    parser.add_argument(
        "--duckdb-memory",
        default="8GB",
        help="memory limit of DuckDB, above which it spills to disk",
    )
    parser.add_argument(
        "--folder",
        type=Path,
        default=Path(),
        help="folder for temporary files; needs about 5 kB per row",
    )
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)  # for the child processes
    arguments = parser.parse_args()
    if arguments.side:
        print(json.dumps(sort_and_write(arguments)))
        return
    with TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        print(f"making {arguments.rows:,} rows", flush=True)
        (folder / "in").mkdir()
        with ThreadPoolExecutor(arguments.threads) as pool:
            list(
                pool.map(
                    lambda part: make_rows(
                        folder / "in", part, min(PART_ROWS, arguments.rows - part * PART_ROWS)
                    ),
                    range(-(-arguments.rows // PART_ROWS)),
                )
            )
        results: dict[str, list[dict[str, float]]] = {side: [] for side in SIDES}
        for number in range(arguments.rounds):
            for side in SIDES if number % 2 == 0 else SIDES[::-1]:
                results[side].append(in_a_child(side, folder, arguments))
                print(side, results[side][-1], flush=True)
        reads = read_back(folder, arguments.threads)
    report(arguments, results, reads)


def in_a_child(side: str, folder: Path, arguments: argparse.Namespace) -> dict[str, float]:
    same = [
        f"--{name}={getattr(arguments, name.replace('-', '_'))}"
        for name in ("threads", "file-megabytes", "duckdb-memory")
    ]
    command = [
        sys.executable,
        "-m",
        "benchmarks.store",
        f"--side={side}",
        f"--folder={folder}",
        *same,
    ]
    return dict(
        json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    )


def sort_and_write(arguments: argparse.Namespace) -> dict[str, float]:
    """Run one side and return its seconds and its peak memory in megabytes."""
    done = threading.Event()
    private = [0]

    def watch() -> None:
        while not done.wait(0.05):
            private[0] = max(private[0], status()["RssAnon"])

    watcher = threading.Thread(target=watch)
    watcher.start()
    started = perf_counter()
    (with_clustermix if arguments.side == SIDES[0] else with_duckdb)(arguments.folder, arguments)
    seconds = perf_counter() - started
    done.set()
    watcher.join()
    return {
        "seconds": seconds,
        "private_mb": private[0] / 1024,
        "resident_mb": status()["VmHWM"] / 1024,
    }


def status() -> dict[str, int]:
    """Return the memory figures of this process in kilobytes, by their names in /proc."""
    lines = (
        line.split() for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    )
    return {words[0].rstrip(":"): int(words[1]) for words in lines if words[-1] == "kB"}


def with_clustermix(folder: Path, arguments: argparse.Namespace) -> None:
    """Do the work of `plan_ranges`, `sort_part` and `shard_part` without their accounts.

    The inputs are read, sorted and written as runs with a file per range. The files of each range
    are merged into documents, tokens and offsets.
    """
    file_bytes = arguments.file_megabytes * 2**20
    inputs = sorted((folder / "in").iterdir())
    ranges = plan(inputs, RANGE_FILES * file_bytes)
    subprocess.run(["rm", "-rf", str(folder / "runs"), str(folder / "shards")], check=True)

    def sort(path: Path) -> Path:
        out = folder / "runs" / path.stem
        out.mkdir(parents=True)
        write_runs(read_batches(path), out, file_bytes, ranges.bounds)
        return out

    def shard(wanted: TopRange) -> None:
        out = folder / "shards" / wanted.name
        out.mkdir(parents=True)
        runs = [SortedRuns(part, wanted.number) for part in sorted_parts]
        offsets, _ = merge_runs(runs, wanted.first, wanted.last, out, file_bytes, wanted.top)
        pq.write_table(offsets, out / OFFSETS_FILE)

    with ThreadPoolExecutor(arguments.threads) as pool:
        sorted_parts = list(pool.map(sort, inputs))
        list(pool.map(shard, (wanted for top in ranges.of_tops(LEVELS) for wanted in top)))


def plan(inputs: Sequence[Path], most: int) -> Ranges:
    """Return the ranges of the inputs, from 1,500 bytes per document."""
    sizes = np.zeros(LEVELS.leaves, np.int64)
    for path in inputs:
        leaf = pq.read_table(path, columns=["leaf"])["leaf"].to_numpy()
        sizes += 1_500 * np.bincount(leaf, minlength=LEVELS.leaves)
    return Ranges(tuple(range_bounds(sizes, LEVELS.span(LEVELS.granularities[0]), most)))


def with_duckdb(folder: Path, arguments: argparse.Namespace) -> None:
    settings = {
        "threads": arguments.threads,
        "memory_limit": arguments.duckdb_memory,
        "temp_directory": str(folder / "spill"),
        "preserve_insertion_order": False,
    }
    with duckdb.connect(config=settings) as connection:  # type: ignore[arg-type]
        rows = f"read_parquet('{folder}/in/*.parquet')"
        connection.execute(
            f"COPY (SELECT * FROM {rows} ORDER BY leaf) TO '{folder}/sorted.parquet' "
            "(FORMAT parquet, COMPRESSION zstd)"
        )


def read_back(folder: Path, threads: int) -> dict[str, list[float]]:
    """Return the seconds of `READS` reads of random domains, and the sizes of the files.

    A read returns all columns of documents. The files are in the page cache of the system.
    """
    files = tiny_files(folder, granularities=list(LEVELS.granularities))
    layout = files.layout
    layout.tables.mkdir(parents=True)
    shards = [Part(path, "", Account(), 0) for path in sorted((folder / "shards").iterdir())]
    by_top = [
        [part for part in shards if part.name.startswith(f"{top:04d}")]
        for top in range(LEVELS.granularities[0])
    ]
    numbered = number_files(by_top, [0] * len(by_top))
    for piece in numbered:
        for number, file in enumerate(document_files(piece.part), piece.first_number):
            link_file(file, layout.documents(piece.top, number))
    pq.write_table(stored_offsets(numbered), layout.offsets)
    domain_offsets = read_offsets(files)
    random = np.random.Generator(np.random.Philox(key=13))
    chosen = random.choice(np.unique(domain_offsets.leaf), READS).tolist()
    names = ", ".join(tables.DOCUMENTS.names)
    duckdb_file = f"{folder}/sorted.parquet"
    places = {
        "DuckDB on its file": duckdb_file,
        "DuckDB on the store": f"{folder}/documents/*/*.parquet",
    }
    times: dict[str, list[float]] = {name: [] for name in ("Catalog.domain", *places)}
    with duckdb.connect(config={"threads": threads}) as connection:
        for leaf in chosen:
            counts = []
            started = perf_counter()
            counts.append(read_domain(files, domain_offsets, LEVELS.leaves, leaf).num_rows)
            times["Catalog.domain"].append(perf_counter() - started)
            for name, path in places.items():
                started = perf_counter()
                query = (
                    f"SELECT {names} FROM read_parquet('{path}', hive_partitioning = false) "
                    f"WHERE leaf = {leaf}"
                )
                counts.append(connection.sql(query).to_arrow_table().num_rows)
                times[name].append(perf_counter() - started)
            assert len(set(counts)) == 1, counts
    sizes = {"store": folder / "shards", "input": folder / "in"}
    for name, place in sizes.items():
        times[f"{name} bytes"] = [
            sum(path.stat().st_size for path in place.rglob("*") if path.is_file())
        ]
    times["duckdb bytes"] = [Path(duckdb_file).stat().st_size]
    times["files"] = [len(list((folder / "shards").rglob("documents-*.parquet")))]
    return times


def report(
    arguments: argparse.Namespace,
    results: dict[str, list[dict[str, float]]],
    reads: dict[str, list[float]],
) -> None:
    rows = [
        "| | seconds (median) | rows/s | peak private memory, MB | peak with mapped pages, MB |",
        "|---|---|---|---|---|",
    ]
    medians = {side: median(run["seconds"] for run in runs) for side, runs in results.items()}
    for side, runs in results.items():
        memory = [max(run[name] for run in runs) for name in ("private_mb", "resident_mb")]
        rows.append(
            f"| {side} | {medians[side]:.1f} | {arguments.rows / medians[side]:,.0f} "
            f"| {memory[0]:,.0f} | {memory[1]:,.0f} |"
        )
    ratios = [
        duckdb_run["seconds"] / store_run["seconds"]
        for store_run, duckdb_run in zip(*(results[side] for side in SIDES), strict=True)
    ]
    lines = [
        "# The store: sort by leaf, write, and read one domain",
        headline(),
        f"{arguments.rows:,} rows in {reads['input bytes'][0] / 1e9:.2f} GB of Parquet, "
        f"4,096 leaves, {arguments.threads} threads, store.file_megabytes "
        f"{arguments.file_megabytes}, DuckDB's memory_limit {arguments.duckdb_memory}.",
        "\n".join(rows),
        f"DuckDB's `COPY (SELECT * ... ORDER BY leaf)` takes {median(ratios):.2f} times as long "
        f"(rounds: {', '.join(f'{ratio:.2f}' for ratio in ratios)}). The store holds "
        f"{reads['store bytes'][0] / 1e9:.2f} GB in {reads['files'][0]:.0f} files of documents and "
        "the same number of files of memory-mapped tokens. DuckDB writes "
        f"{reads['duckdb bytes'][0] / 1e9:.2f} GB in one file.",
        f"Reads of {READS} random domains out of 4,096, one per read, with all columns and with "
        "the files in the page cache:",
        "| | median, ms | 95 %, ms | maximum, ms |\n|---|---|---|---|",
    ]
    for name in ("Catalog.domain", "DuckDB on its file", "DuckDB on the store"):
        times = np.array(reads[name]) * 1000
        lines[-1] += (
            f"\n| {name} | {np.median(times):.1f} | {np.quantile(times, 0.95):.1f} "
            f"| {times.max():.1f} |"
        )
    text = "\n\n".join(lines) + "\n"
    print(text)
    Path(f"benchmarks/results/{today()}-store.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
