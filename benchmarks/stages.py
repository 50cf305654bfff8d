"""Measure documents per second for each stage of a build.

The sample catalog is built from scratch by the plain loop, which runs one part after the other.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

from benchmarks.hardware import headline, today
from data_catalog.format.accounts import total
from data_catalog.settings import load
from pipeline.config import Build
from pipeline.parts import Part
from pipeline.run import build, one_by_one

HEADER = "| stage | parts | documents | seconds | documents/s |"


def row(stage: str, parts: Sequence[Part], seconds: float) -> str:
    """Return the table row of a stage, in the columns of HEADER."""
    documents = total(part.account for part in parts).read.rows
    rate = f"{documents / seconds:,.0f}" if documents else ""
    return f"| {stage} | {len(parts)} | {documents or ''} | {seconds:.1f} | {rate} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, default=Path("configs/sample.toml"))
    arguments = parser.parse_args()
    rows = [HEADER, "|---|---|---|---|---|"]

    def timed(stage, function, calls):  # type: ignore[no-untyped-def]
        started = perf_counter()
        parts = one_by_one(stage, function, calls)
        seconds = perf_counter() - started
        rows.append(row(stage, parts, seconds))
        print(rows[-1], flush=True)
        return parts

    with TemporaryDirectory(dir=".") as folder:
        build(load(Build, arguments.config, [f"out={folder}"]), timed)
    text = (
        f"# The stages of a build\n\n{headline()}\n\n`{arguments.config}`, one process.\n\n"
        + "\n".join(rows)
    )
    Path(f"benchmarks/results/{today()}-stages.md").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
