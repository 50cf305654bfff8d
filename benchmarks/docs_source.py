"""Compare reading Python documentation with the distributions listed once, or once per package.

Both run in turns in one process. The documents are those of the demo.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from time import process_time

import numpy as np

from benchmarks.hardware import headline, today
from data_catalog.settings import load
from pipeline.config import Build
from pipeline.source.python_docs import _installed_distributions
from pipeline.source.registry import corpus_source
from pipeline.source.stage import read_shard

ROUNDS = 3
DEMO = Path("flows/cli/demo_build.toml")


def rate(before_package: Callable[[], object], packages: int) -> float:
    """Return documents per CPU-second of some packages of the demo.

    Args:
        before_package: Called before each package.
        packages: Number of packages, the first by name.
    """
    source = corpus_source(load(Build, DEMO, []))
    shards = source.plan().shards[:packages]
    with TemporaryDirectory() as folder:
        started, documents = process_time(), 0
        for shard in shards:
            before_package()
            documents += read_shard(shard, Path(folder, shard.name), source).account.kept.rows
        return documents / (process_time() - started)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--packages", type=int, default=5)
    arguments = parser.parse_args()
    once, per_package = [], []
    for _ in range(ROUNDS):
        _installed_distributions.cache_clear()
        once.append(rate(lambda: None, arguments.packages))
        per_package.append(rate(_installed_distributions.cache_clear, arguments.packages))
    ratio = np.median(np.array(once) / np.array(per_package))
    text = (
        f"# Reading Python documentation\n\n{headline()}\n\n"
        f"The stage `source` of the demo, the first {arguments.packages} packages by name, one "
        f"thread. Medians of {ROUNDS} runs in turns.\n\n"
        "| installed distributions are listed | documents per CPU-second |\n|---|---|\n"
        f"| once per package | {np.median(per_package):,.0f} |\n"
        f"| once | {np.median(once):,.0f} |\n\n"
        f"Median ratio: {ratio:.2f}.\n"
    )
    print(text)
    Path(f"benchmarks/results/{today()}-docs-source.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
