"""The first table: natural mixture, importance sampling and DGA on the sample corpus, for the same tokens, with seeds.

Builds the catalog if it is not there, trains 5 runs a seed (those done are kept), and writes the dated table.
"""

import argparse
import json
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import duckdb
import numpy as np

import data_catalog
from benchmarks.hardware import headline, today
from data_catalog.settings import load
from flows.environment import prepare

prepare()
from flows.build import build  # noqa: E402 - after Prefect's settings
from flows.report.data import read_runs  # noqa: E402
from flows.train import train  # noqa: E402
from pipeline.config import Build  # noqa: E402
from pipeline.description.health import compare  # noqa: E402

TARGETS = ("heldout_biomed", "heldout_law")
CONFIG = Path("configs/train_sample.toml")


def runs(seeds: int, steps: int) -> Iterator[tuple[str, str, int, Path, list[str]]]:
    """Mixer, target, seed, folder, overrides; seeds outermost, so that an early stop leaves whole comparisons."""
    for seed, (mixer, target) in product(range(seeds), [("natural", TARGETS[0]), *product(("importance", "dga"), TARGETS)]):
        folder = Path(f"runs/first-table/{mixer}-{target}-{seed}")
        others = [name for name in TARGETS if name != target]
        settings = {
            "out": str(folder),
            "seed": seed,
            "target": target,
            "mixture.mixer": mixer,
            "training.steps": steps,
            "evaluation.targets": others,
        }
        yield mixer, target, seed, folder, [f"{key}={json.dumps(value)}" for key, value in settings.items()]


def losses(folder: Path) -> dict[str, float]:
    """The last loss of each held-out set, and the run's totals."""
    [run] = read_runs([folder])
    return {record["set"]: record["loss"] for record in run.of_kind("eval")} | dict(run.final or {})


def clusters(catalog: Path, truth: Path) -> list[str]:
    """Normalised mutual information of the domains with the corpus's own labels, a row a level."""
    opened = data_catalog.open(catalog)
    documents = opened.sql("SELECT doc_id, leaf FROM documents").to_arrow_table()  # noqa: F841 - the query below reads it
    labels = duckdb.sql(f"SELECT leaf, domain, source FROM documents JOIN read_parquet('{truth}') USING (doc_id)").to_arrow_table()
    found = [compare(labels[name].to_pylist(), labels["leaf"].to_numpy(), opened.levels) for name in ("domain", "source")]
    rows = ["| domains | NMI with the 12 labelled domains | NMI with the 32 sources |", "|---|---|---|"]
    return rows + [f"| {k} | {found[0][k][0]:.3f} | {found[1][k][0]:.3f} |" for k in opened.levels.granularities]


def table(found: dict[tuple[str, str], list[dict[str, float]]]) -> list[str]:
    """Mean ± standard error over seeds, and the paired difference of DGA to importance sampling."""
    rows = ["| target | mixer | target loss (test) | general loss | tokens | repeats | seconds |", "|---|---|---|---|---|---|---|"]
    for target in TARGETS:
        for mixer in ("natural", "importance", "dga"):
            results = found[mixer, TARGETS[0] if mixer == "natural" else target]
            key = "target/test" if (mixer, target) != ("natural", TARGETS[1]) else f"{target}/test"
            columns = [spread([r[name] for r in results]) for name in (key, "general")]
            means = [np.mean([r[name] for r in results]) for name in ("tokens", "repeats", "seconds")]
            rows.append(f"| {target} | {mixer} | {columns[0]} | {columns[1]} | {means[0] / 1e6:.2f} M | {means[1]:.2f} | {means[2]:.0f} |")
        pairs = list(zip(found["dga", target], found["importance", target], strict=True))
        gaps = [spread([a[name] - b[name] for a, b in pairs]) for name in ("target/test", "general")]
        rows.append(f"| {target} | dga − importance, paired | {gaps[0]} | {gaps[1]} | | | |")
    return rows


def spread(values: list[float]) -> str:
    error = np.std(values, ddof=1) / np.sqrt(len(values)) if len(values) > 1 else float("nan")
    return f"{np.mean(values):.4f} ± {error:.4f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--out", type=Path, default=Path(f"benchmarks/results/{today()}-first-table.md"))
    arguments = parser.parse_args()
    config = load(Build, Path("configs/sample.toml"))
    catalog = Path(build(config))
    found: dict[tuple[str, str], list[dict[str, float]]] = {}
    for mixer, target, _, folder, overrides in runs(arguments.seeds, arguments.steps):
        train(CONFIG, tuple(overrides))
        found.setdefault((mixer, target), []).append(losses(folder))
    parameters = int(next(iter(found.values()))[0]["model_parameters"])
    opened = data_catalog.open(catalog)
    text = [
        "# The first table: sample corpus, tiny model",
        headline(),
        f"Catalog `{opened.manifest['fingerprint'][:12]}`: {opened.manifest['documents']:,} documents, "
        f"domains {list(opened.levels.granularities)}. "
        f"Model: Llama-style, {parameters:,} parameters, `{CONFIG}` with the mixer changed, {arguments.steps} steps. "
        f"Loss in nats per token on held-out text; mean ± standard error over {arguments.seeds} seeds. "
        "Repeats: sequences drawn / distinct sequences drawn.",
        "\n".join(table(found)),
        "## Clusters and ground truth",
        "\n".join(clusters(catalog, config.source.path / "truth.parquet")),  # type: ignore[union-attr]
    ]
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text("\n\n".join(text) + "\n", encoding="utf-8")
    print(arguments.out.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
