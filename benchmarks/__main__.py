"""Run all or the named benchmarks one after the other: `python -m benchmarks [NAME ...]`.

Each benchmark runs in its own process with its default arguments and writes its result file. If a
benchmark fails, the others still run, and the exit code is 1.
"""

import argparse
import subprocess
import sys
from pathlib import Path
from time import perf_counter

NOT_BENCHMARKS = (
    "__init__",
    "__main__",
    "goals",
    "hardware",
    "readme",
    "scored_training",
    "synthetic_documents",
    "windows",
)


def benchmark_names() -> list[str]:
    """Return the names of the modules of this folder that are benchmarks."""
    names = (path.stem for path in Path(__file__).parent.glob("*.py"))
    return sorted(name for name in names if name not in NOT_BENCHMARKS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(benchmark_names()))
    names = parser.parse_args().names or benchmark_names()
    if unknown := sorted(set(names) - set(benchmark_names())):
        parser.error(
            f"{unknown[0]}: not a benchmark. The benchmarks are {', '.join(benchmark_names())}."
        )
    failed = []
    for number, name in enumerate(names, 1):
        print(f"[{number}/{len(names)}] {name}", flush=True)
        started = perf_counter()
        done = subprocess.run([sys.executable, "-m", f"benchmarks.{name}"], check=False)
        if done.returncode:
            failed.append(name)
        print(f"  exit code {done.returncode}, {perf_counter() - started:.0f} s", flush=True)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
