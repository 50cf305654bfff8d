"""The demo: one catalog from text on this machine, four runs with different mixtures, one page.

The configs are `demo_build.toml` and `demo_train.toml` in this folder.
"""

import json
from collections.abc import Callable
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

from rich.console import Console

import data_catalog
from data_catalog.settings import load
from flows.cli.summary import print_build, print_runs
from flows.recipe import Recipe
from pipeline.config import Build
from pipeline.describe.health import compare_labels
from trainer.config import Train

VARIANTS: dict[str, dict[str, Any]] = {
    "natural": {"mixture": {"mixer": "natural"}},
    "importance": {"mixture": {"mixer": "importance"}},
    "half-and-half": {"mixture": {"mixer": "static", "target_share": 0.5}},
    "dga": {"mixture": {"mixer": "dga"}},
}
_console = Console()


def run_demo(out: Path, build: Callable[[Build], Any], experiment: Callable[[Recipe], Any]) -> None:
    """Build a catalog, train one run per mixture, and compare them on a page and in a table.

    Writes `out/catalog`, `out/runs/VARIANT` and `out/report.html`. Finished work is reused.

    Args:
        out: Folder for the catalog, the runs and the page.
        build: Builds a catalog, as a Prefect flow or in this process.
        experiment: Trains and compares runs, likewise.
    """
    catalog = out / "catalog"
    with as_file(files("flows.cli")) as configs:
        build(load(Build, configs / "demo_build.toml", [path_setting("out", catalog)]))
        print_build(catalog)
        print_agreement(catalog)
        overrides = [path_setting("catalog", catalog), path_setting("out", out)]
        config = load(Train, configs / "demo_train.toml", overrides)
    experiment(
        Recipe(
            out=out,
            run=config.model_dump(mode="json", exclude={"out"}, exclude_unset=True),
            variants=VARIANTS,
        )
    )
    runs = [out / "runs" / variant for variant in VARIANTS]
    print_runs(runs, "run")
    _console.print(f"Report: {(out / 'report.html').resolve()}", highlight=False, soft_wrap=True)


def print_agreement(catalog: Path) -> None:
    """Print how well the domains agree with the Python packages that the documents are from."""
    opened = data_catalog.open(catalog)
    documents = opened.sql("SELECT source, leaf FROM documents").to_arrow_table()
    scores = compare_labels(
        documents["source"].to_pylist(), documents["leaf"].to_numpy(), opened.levels
    )
    text = ", ".join(f"{nmi:.2f} at level {k}" for k, (nmi, _) in scores.items())
    _console.print(
        f"Agreement of domains and packages (normalised mutual information): {text}",
        highlight=False,
        soft_wrap=True,
    )


def path_setting(key: str, path: Path) -> str:
    """Return a `--set` value for a path. A JSON string is also a TOML string."""
    return f"{key}={json.dumps(str(path), ensure_ascii=False)}"
