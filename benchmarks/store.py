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
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.hardware import headline, today
from data_catalog.format import tables
from data_catalog.format.layout import Levels
from data_catalog.format.offsets import read_offsets
from data_catalog.query.read_domain import read_domain
from pipeline.publish.link_files import link_file
from pipeline.shard.merge import merge_runs
from pipeline.shard.sorted_runs import IDS_COLUMN, SortedRuns, run_columns, write_runs
from tests.helpers.manifests import tiny_files

LEVELS = Levels((64, 4096))
PART_ROWS = 100_000  # per input file
READS = 200
SIGNALS = [
    "ccnet_perplexity",
    "ccnet_length",
    "rps_doc_word_count",
    "rps_doc_mean_word_length",
    "rps_doc_frac_unique_words",
]
SCHEMA = pa.schema([*tables.DOCUMENTS, pa.field(IDS_COLUMN, pa.large_list(pa.uint16()))])
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
                    lambda part: make_rows(folder / "in", part, arguments.rows),
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


def make_rows(folder: Path, part: int, total: int) -> None:
    """Write one input file of random documents.

    A document has 60 to 130 words from a long-tailed vocabulary of 30,000, and a random leaf,
    split and list of token ids.
    """
    random = np.random.Generator(np.random.Philox(key=[11, part]))
    n = min(PART_ROWS, total - part * PART_ROWS)
    letters = np.random.Generator(np.random.Philox(key=[12, 0]))
    words = pa.array(
        [
            "".join(map(chr, letters.integers(97, 123, letters.integers(2, 11)))) + " "
            for _ in range(30_000)
        ]
    )
    lengths, sizes = random.integers(60, 131, n), random.integers(100, 201, n)
    text_words = words.take(
        pa.array((random.random(int(lengths.sum())) ** 3 * len(words)).astype(np.int64))
    )
    _, starts, letters_of_all = text_words.buffers()
    ends = np.r_[0, np.cumsum(lengths)]
    text_ends = np.frombuffer(starts, np.int32)[ends].astype(np.int64)
    text = pa.LargeStringArray.from_buffers(n, pa.py_buffer(text_ends.tobytes()), letters_of_all)
    number = random.integers(0, 2**64, n, np.uint64)
    names = pa.array([f"{value:016x}" for value in number.tolist()])
    made = {
        "doc_id": names,
        "id_int": number,
        "url": [f"https://site{value % 997}.example/{value}" for value in number.tolist()],
        "source": [f"site{value % 997}.example" for value in number.tolist()],
        "language": ["en"] * n,
        "digest": pa.array([f"{value:032x}" for value in number.tolist()]),
        "text": text,
        "characters": np.diff(text_ends),
        "tokens": sizes,
        "signals": pa.MapArray.from_arrays(
            np.arange(n + 1, dtype=np.int32) * len(SIGNALS),
            pa.array(SIGNALS * n),
            random.random(len(SIGNALS) * n),
        ),
        "failed_rules": np.zeros(n, np.uint64),
        # Skewed: the largest leaf has 37 times the mean number of rows.
        "leaf": (random.random(n) ** 1.5 * LEVELS.leaves).astype(np.uint32),
        "distance": random.random(n, np.float32),
        "split": np.where(random.random(n) < 0.02, "heldout", "train").astype(object),
        "ids": pa.LargeListArray.from_arrays(
            np.r_[0, np.cumsum(sizes)],
            random.integers(0, 8_192, int(sizes.sum())).astype(np.uint16),
        ),
    }
    table = pa.table([made[name] for name in run_columns()], names=run_columns()).cast(SCHEMA)
    pq.write_table(
        table,
        folder / f"{part:04d}.parquet",
        compression="lz4",
        row_group_size=8_192,
        use_dictionary=["source", "language"],
    )


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
    """Do the work of `sort_part` and `shard_part` without their accounts.

    The inputs are read, sorted and written as runs. The runs are merged into documents, tokens
    and offsets.
    """
    file_bytes = arguments.file_megabytes * 2**20
    inputs = sorted((folder / "in").iterdir())
    subprocess.run(["rm", "-rf", str(folder / "runs"), str(folder / "shards")], check=True)

    def sort(path: Path) -> SortedRuns:
        out = folder / "runs" / path.stem
        out.mkdir(parents=True)
        write_runs(read_batches(path), out, file_bytes)
        return SortedRuns(out)

    def shard(top: int) -> None:
        out = folder / "shards" / f"{top:04d}"
        out.mkdir(parents=True)
        span = LEVELS.span(LEVELS.granularities[0])
        pq.write_table(
            merge_runs(runs, top * span, (top + 1) * span, out, file_bytes, top)[0],
            out / "offsets.parquet",
        )

    with ThreadPoolExecutor(arguments.threads) as pool:
        runs = list(pool.map(sort, inputs))
        list(pool.map(shard, range(LEVELS.granularities[0])))


def read_batches(path: Path) -> Iterator[pa.Table]:
    with pq.ParquetFile(path, pre_buffer=False) as file:
        for batch in file.iter_batches(4_096):
            yield pa.Table.from_batches([batch])


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
    offsets = []
    for top, shard in enumerate(sorted((folder / "shards").iterdir())):
        offsets.append(pq.read_table(shard / "offsets.parquet"))
        for file in shard.glob("documents-*.parquet"):
            link_file(file, layout.documents(top, int(file.stem[-4:])))
    pq.write_table(pa.concat_tables(offsets), layout.offsets)
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
