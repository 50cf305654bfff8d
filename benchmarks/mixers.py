"""Compare all mixers on the sample corpus, with the same number of tokens and several seeds.

The domains have either all their data or a limited number of tokens each. The script builds the
catalog if it does not exist, trains, and writes a dated table. Finished runs are reused.
"""

import argparse
import json
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

import data_catalog
from benchmarks.hardware import headline, today
from data_catalog.settings import load
from flows.environment import prepare

prepare()
from flows.build import build  # noqa: E402 - after Prefect's settings
from flows.pages.run.data import read_runs  # noqa: E402
from flows.train import train  # noqa: E402
from pipeline.config import Build  # noqa: E402
from trainer.config import Train  # noqa: E402

CONFIG = Path("configs/train_sample.toml")
Results = dict[tuple[str, str], list[dict[str, float]]]  # one dict per seed, by mixer and target
# Config keys set by each row. {NAME} stands for the folder of the run of the row NAME with the same
# target and seed.
MIXERS: dict[str, dict[str, Any]] = {
    "natural": {"mixer": "natural"},
    "importance": {"mixer": "importance"},
    "dga": {"mixer": "dga"},
    "dga, no EMA": {"mixer": "dga", "ema": 1.0},
    "dga from importance": {"mixer": "dga", "start": "{target}"},
    "odm": {"mixer": "odm"},
    "ado": {"mixer": "ado"},
    "doge, proxy": {"mixer": "doge", "update_every_steps": 5},
    "doge": {"mixer": "static", "file": "{doge, proxy}/weights.json"},
    "doremi, proxy": {"mixer": "doremi", "reference": "{natural}/model"},
    "doremi": {"mixer": "static", "file": "{doremi, proxy}/weights.json"},
}


def run(
    name: str, target: str, seed: int, base: Path, common: dict[str, Any], targets: list[str]
) -> Path:
    """Train a row unless its run is finished, and return the folder of the run."""

    def folder(row: str) -> Path:
        return base / f"{row.replace(', ', '-').replace(' ', '-')}-{target}-{seed}"

    names = {row: str(folder(row)) for row in MIXERS} | {"target": target}
    mixture = {
        key: value.format_map(names) if isinstance(value, str) else value
        for key, value in MIXERS[name].items()
    }
    settings = {
        **common,
        **{f"mixture.{key}": value for key, value in mixture.items()},
        "out": str(folder(name)),
        "seed": seed,
        "target": target,
        "evaluation.targets": [other for other in targets if other != target],
    }
    train(load(Train, CONFIG, [f"{key}={json.dumps(value)}" for key, value in settings.items()]))
    return folder(name)


def losses(folder: Path) -> dict[str, float]:
    """Return the last loss of each held-out set, together with the totals of the run."""
    [run] = read_runs([folder])
    return {record["set"]: record["loss"] for record in run.of_kind("eval")} | dict(run.final or {})


def table(results: Results, targets: list[str]) -> list[str]:
    """Return table rows with means and standard errors over seeds.

    The differences from importance sampling are paired by seed.
    """
    rows = [
        "| target | mixer | target loss | − importance | general loss | − importance | repeats "
        "| seconds |",
        "|" + "---|" * 8,
    ]
    for target, name in product(targets, MIXERS):
        runs = results.get((name, target), [])
        if not runs or name.endswith("proxy"):
            continue
        columns = []
        for key in ("target/test", "general"):
            pairs = zip(runs, results.get(("importance", target), []), strict=False)
            gaps = [a[key] - b[key] for a, b in pairs]
            columns += [
                spread([run[key] for run in runs]),
                spread(gaps) if gaps and name != "importance" else "",
            ]
        means = [np.mean([run[key] for run in runs]) for key in ("repeats", "seconds")]
        rows.append(
            f"| {target} | {name} | {' | '.join(columns)} | {means[0]:.2f} | {means[1]:.0f} |"
        )
    return rows


def spread(values: list[float]) -> str:
    """Return the mean and the standard error as text."""
    error = np.std(values, ddof=1) / np.sqrt(len(values)) if len(values) > 1 else float("nan")
    return f"{np.mean(values):.4f} ± {error:.4f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--targets", nargs="+", default=["heldout_biomed", "heldout_law"])
    parser.add_argument("--mixers", nargs="+", default=list(MIXERS), choices=list(MIXERS))
    parser.add_argument("--tokens-per-domain", type=int, help="limit on the tokens of each domain")
    parser.add_argument(
        "--set",
        dest="overrides",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="config key of every run, with its value in JSON; may be repeated",
    )
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    config = load(Build, Path("configs/sample.toml"))
    catalog = config.out if (config.out / "catalog.json").is_file() else Path(build(config))
    scarce = arguments.tokens_per_domain
    common = {"training.steps": arguments.steps} | {
        k: json.loads(v) for k, _, v in (text.partition("=") for text in arguments.overrides)
    }
    if scarce:
        common["data.tokens_per_domain"] = scarce
    setting = f"{scarce}-tokens-per-domain" if scarce else "all-data"
    out = arguments.out or Path(f"benchmarks/results/{today()}-mixers-{setting}.md")
    results: Results = {}
    # Seeds are the outer loop, so that an early stop leaves complete comparisons.
    for seed, target, name in product(range(arguments.seeds), arguments.targets, arguments.mixers):
        folder = run(name, target, seed, Path("runs/mixers") / setting, common, arguments.targets)
        results.setdefault((name, target), []).append(losses(folder))
        write(out, catalog, results, arguments, common)
    print(out.read_text(encoding="utf-8"))


def write(
    out: Path,
    catalog: Path,
    results: Results,
    arguments: argparse.Namespace,
    common: Any,
) -> None:
    opened = data_catalog.open(catalog)
    parameters = int(next(iter(results.values()))[0]["model_parameters"])
    tokens = next(iter(results.values()))[0]["tokens"] / 1e6
    scarce = arguments.tokens_per_domain
    text = [
        f"# Mixers: sample corpus, {f'{scarce:,} tokens per domain' if scarce else 'all data'}, "
        "tiny model",
        headline(),
        f"Catalog `{opened.manifest.fingerprint[:12]}`: {opened.manifest.documents:,} documents, "
        f"domains {list(opened.levels.granularities)}. Model: Llama-style, {parameters:,} "
        f"parameters. Config: `{CONFIG}` with {json.dumps(common)}. {tokens:.2f} M tokens per run. "
        "Losses are in nats per token on held-out text, at the end of training. Values are means "
        f"± standard errors over {arguments.seeds} seeds, and differences are paired by seed. "
        "Repeats are the sequences drawn divided by the distinct sequences drawn. The doge and "
        "doremi rows are static runs with the weights from a proxy run of the same size, whose "
        "time is not counted.",
        "\n".join(table(results, arguments.targets)),
    ]
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text("\n\n".join(text) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
