"""Measure the seconds and the memory of describing domains.

The documents and the tree are synthetic. Top-level domains are described one after the other.

python -m benchmarks.describe --documents 300000 --granularities 64 4096 262144
"""

import argparse
import resource
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.hardware import headline, today
from data_catalog.format import tables
from data_catalog.format.accounts import Account, Tally
from data_catalog.format.layout import Levels
from pipeline.describe.domains import describe_domains
from pipeline.describe.stage import describe_part
from pipeline.parts import Part, make_part

WORDS = 100  # per document
VOCABULARY = 200_000


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--documents", type=int, default=300_000)
    parser.add_argument("--granularities", type=int, nargs="+", default=[64, 4_096])
    parser.add_argument("--folder", type=Path, default=Path("."), help="folder for temporary files")
    arguments = parser.parse_args()
    levels = Levels(tuple(arguments.granularities))
    with TemporaryDirectory(dir=arguments.folder) as folder:
        work = Path(folder)
        tops = levels.granularities[0]
        stored = [
            make(work / "stored" / f"{top:04d}", top, arguments.documents // tops, levels)
            for top in range(tops)
        ]
        tree = make_part(work / "tree", "tree", lambda out: save_tree(out, levels))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        started = perf_counter()
        described = [
            describe_part([part], work / "described" / part.name, levels) for part in stored
        ]
        parts_ended = perf_counter()
        done = describe_domains(described, stored, tree, work / "domains", None, levels)
        ended = perf_counter()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        sizes = {path.name: path.stat().st_size for path in done.folder.iterdir()}
    tables_mib = [sizes[file] / 2**20 for file in ("domains.parquet", "examples.parquet")]
    row = (
        f"| {arguments.documents:,} | {' '.join(map(str, levels.granularities))} "
        f"| {parts_ended - started:.1f} | {ended - parts_ended:.1f} "
        f"| {before / 2**10:,.0f} | {peak / 2**10:,.0f} "
        f"| {tables_mib[0]:.1f} | {tables_mib[1]:.1f} |"
    )
    write(row)


def make(folder: Path, top: int, documents: int, levels: Levels) -> Part:
    """Write documents with Zipf-distributed words in random leaves of one top-level domain."""
    random = np.random.Generator(np.random.Philox(key=[top, 0]))
    span = levels.span(levels.granularities[0])
    words = random.zipf(1.3, (documents, WORDS)) % VOCABULARY
    columns = {
        "doc_id": [f"{top}/{i}" for i in range(documents)],
        "id_int": random.integers(0, 2**63, documents).astype(np.uint64),
        "source": [f"site-{i}.example" for i in random.integers(0, 1_000, documents)],
        "language": ["en"] * documents,
        "text": [" ".join(map(name, row)) for row in words.tolist()],
        "tokens": np.full(documents, 150),
        "leaf": np.sort(random.integers(top * span, (top + 1) * span, documents)).astype(np.uint32),
        "distance": random.random(documents, np.float32),
    }
    full = pa.table(
        {
            field.name: columns.get(field.name, pa.nulls(documents, field.type))
            for field in tables.DOCUMENTS
        }
    )

    def fill(out: Path) -> Account:
        pq.write_table(
            full.cast(tables.DOCUMENTS),
            out / "documents.parquet",
            row_group_size=2_048,
            compression="zstd",
        )
        return Account(read=Tally(rows=documents), kept=Tally(rows=documents))

    return make_part(folder, folder.name, fill)


def name(word: int) -> str:
    """Return the letters of a word, given its number."""
    return "".join(chr(ord("a") + int(digit)) for digit in f"{word:06d}")


def save_tree(out: Path, levels: Levels) -> Account:
    random = np.random.Generator(np.random.Philox(key=[0, 1]))
    arrays = {}
    for k in levels.granularities:
        x = random.standard_normal((k, 384), np.float32)
        arrays[str(k)] = x / np.linalg.norm(x, axis=1, keepdims=True)
    np.savez(out / "centroids.npz", **arrays)
    return Account()


def write(row: str) -> None:
    """Append a row to the result file of today.

    Each row needs its own process, since the peak memory belongs to the process.
    """
    path = Path(f"benchmarks/results/{today()}-describe.md")
    if not path.is_file():
        columns = (
            "| documents | granularities | parts, s | domains, s | memory before, MiB "
            "| peak memory, MiB | domains.parquet, MiB | examples.parquet, MiB |"
        )
        path.write_text(
            f"# Describing domains\n\n{headline()}\n\n{columns}\n" + "|---" * 8 + "|\n",
            encoding="utf-8",
        )
    with path.open("a", encoding="utf-8") as file:
        file.write(row + "\n")
    print(row)


if __name__ == "__main__":
    main()
