"""Measure CPU time and peak memory of finding near copies, from signatures to verdicts.

Signatures are synthetic: 14 bands of 9 random values. In "copies", each third document is a near
copy of the one before it (Jaccard similarity about 0.85). In "one band", all documents share their
first band and nothing else, as pages with common boilerplate may. Each row is one process for all
stages. `memory` is `dedup.memory_megabytes`. The peak includes about 100 MB for Python and its
libraries.
"""

import argparse
import resource
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from time import process_time
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.hardware import headline, today
from data_catalog.format import tables
from data_catalog.format.accounts import Account, Tally
from pipeline.config import Dedup
from pipeline.dedup.shuffle import drop_copies
from pipeline.dedup.signatures import BANDS, SIGNATURES_FILE
from pipeline.parts import Part, make_part
from pipeline.quality.stage import VERDICTS_FILE
from pipeline.source.documents import Shard

CASES = (
    ("copies", 50_000),
    ("copies", 100_000),
    ("copies", 200_000),
    ("copies", 800_000),
    ("one band", 100_000),
)
PART_DOCUMENTS = 25_000
STAGES = ("bands", "pairs", "resolve", "dedup")


def synthetic_values(kind: str, documents: int, seed: int) -> np.ndarray:
    """Return MinHash values, (documents, 126) big-endian uint32."""
    random = np.random.Generator(np.random.Philox(key=seed))
    values = random.integers(0, 1 << 32, (documents, 126), np.uint32)
    if kind == "one band":
        values[:, :9] = 7
    else:
        copies = np.arange(2, documents, 3)
        is_same = random.random((len(copies), 126)) < 0.85
        values[copies] = np.where(is_same, values[copies - 1], values[copies])
    return values.astype(">u4")


def make_parts(root: Path, kind: str, documents: int) -> tuple[list[Part], list[Part], list[Part]]:
    """Return parts of source, quality and sign. Those of source have no files."""
    sources: list[Part] = []
    judged: list[Part] = []
    signed: list[Part] = []
    bands, rows = BANDS[0.7]
    for number in range(documents // PART_DOCUMENTS):
        name = f"{number:05d}"
        amount = Tally(rows=PART_DOCUMENTS)
        account = Account(read=amount, kept=amount)
        values = synthetic_values(kind, PART_DOCUMENTS, number)
        flat = pa.Array.from_buffers(
            pa.binary(4 * rows), len(values) * bands, [None, pa.py_buffer(values.tobytes())]
        )
        column = pa.ListArray.from_arrays(
            np.arange(0, len(flat) + 1, bands, dtype=np.int32), flat.cast(pa.binary())
        )
        signatures = pa.table([column], schema=tables.SIGNATURES)
        verdicts = pa.table(
            {
                "id_int": np.arange(PART_DOCUMENTS, dtype=np.uint64),
                "characters": np.full(PART_DOCUMENTS, 1_000),
                "failed_rules": np.zeros(PART_DOCUMENTS, np.uint64),
                "reason": pa.nulls(PART_DOCUMENTS, pa.string()),
            }
        ).cast(tables.VERDICTS)

        def make(table: pa.Table, file: str, account: Account) -> Callable[[Path], Account]:
            def write(out: Path) -> Account:
                pq.write_table(table, out / file)
                return account

            return write

        sources.append(Part(root / "source" / name, name, account, 0))
        for parts, stage, table, file in (
            (judged, "quality", verdicts, VERDICTS_FILE),
            (signed, "sign", signatures, SIGNATURES_FILE),
        ):
            parts.append(make_part(root / stage / name, name, make(table, file, account)))
    return sources, judged, signed


def measure(kind: str, documents: int, memory: int) -> str:
    """Return a table row."""
    seconds: dict[str, float] = {}
    dropped = 0
    with TemporaryDirectory() as name:
        sources, judged, signed = make_parts(Path(name), kind, documents)

        def each(
            stage: str, function: Callable[..., Part], calls: Sequence[tuple[Any, ...]]
        ) -> list[Part]:
            if stage == "sign":
                return signed
            started = process_time()
            parts = [function(*arguments) for arguments in calls]
            seconds[stage] = process_time() - started
            return parts

        config = Dedup(tiers=("minhash",), memory_megabytes=memory)
        shards = [
            Shard(name=part.name, kind="jsonl", root=Path(name), key=part.name, inputs=())
            for part in sources
        ]
        parts = drop_copies(shards, sources, judged, Path(name), config, each, {})
        dropped = documents - sum(part.account.kept.rows for part in parts)
        written = sum(file.stat().st_size for file in Path(name).glob("bands/*/*.bin"))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    stages = " | ".join(f"{seconds[stage]:.2f}" for stage in STAGES)
    cpu = sum(seconds[stage] for stage in STAGES)
    return (
        f"| {kind} | {documents:,} | {stages} | {1e6 * cpu / documents:.0f} | {peak:,.0f} "
        f"| {written / documents:,.0f} | {dropped:,} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--memory", type=int, default=256)
    parser.add_argument("--only", nargs=2, metavar=("KIND", "DOCUMENTS"), help="print one row")
    arguments = parser.parse_args()
    if arguments.only:
        print(measure(arguments.only[0], int(arguments.only[1]), arguments.memory))
        return
    lines = [
        "| case | documents | bands, CPU s | pairs | resolve | dedup | us/document | peak MB "
        "| bytes/document | dropped |",
        "|---" * 10 + "|",
    ]
    for kind, documents in CASES:
        command = [sys.executable, "-m", "benchmarks.dedup_scale", "--memory"]
        command += [str(arguments.memory), "--only", kind, str(documents)]
        ended = subprocess.run(command, check=True, capture_output=True, text=True)
        lines.append(ended.stdout.strip())
        print(lines[-1], flush=True)
    text = f"# Near copies at scale\n\n{headline()}\n\n{__doc__.split(chr(10), 2)[2].strip()}\n\n"
    path = Path(f"benchmarks/results/{today()}-dedup-scale.md")
    path.write_text(text + "\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
