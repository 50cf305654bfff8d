"""Run an experiment of `configs/experiment_*.toml` and store its results and its tables.

The catalog is built if it does not exist. Finished runs are kept. The results of all runs are
stored, a line per run, so that the tables can be computed again without the runs.
"""

import argparse
import shutil
from pathlib import Path

from benchmarks.goals import answers, table
from benchmarks.hardware import headline, today
from data_catalog.settings import load
from flows.comparison import Result
from flows.experiment_results import RESULTS, load_results, tables
from flows.recipe import Recipe, open_recipe
from pipeline.config import Build

ROOT = Path(__file__).parent.parent
CONFIGS = ROOT / "configs"
EACH = "Each target and repetition"  # heading of the details, which docs/results.md leaves out
CATALOG = CONFIGS / "sample_small.toml"
STORED = ROOT / "benchmarks" / "results"
# Targets, repetitions and seeds of `--reduced`, which takes minutes instead of hours.
REDUCED = {"targets": ("heldout_law", "heldout_biomed"), "seeds": (0, 1)}


def recipe_of(name: str) -> Path:
    """Return the path of a recipe."""
    return CONFIGS / f"experiment_{name}.toml"


def recipe_names() -> list[str]:
    """Return the names of all recipes."""
    prefix = "experiment_"
    return sorted(path.stem.removeprefix(prefix) for path in CONFIGS.glob(f"{prefix}*.toml"))


def body(name: str, results: list[Result], recipe: Recipe, transfer: list[Result]) -> str:
    """Return the part of a result file that follows from the results alone.

    Args:
        name: name of the recipe.
        results: its results.
        recipe: the recipe.
        transfer: results of the recipe `transfer`, which one of the goals of `frontier` needs.
    """
    text = tables(results, recipe.compared_with, recipe.predicted)
    each, heading, together = text.partition("### All targets and repetitions")
    parts = [f"{heading[1:]}{together.rstrip()}", f"## {EACH}", each.rstrip()]
    if name == "frontier":
        parts.insert(0, f"## Goals\n\n{table(answers(results, transfer))}")
    return "\n\n".join(parts) + "\n"


def stored_results(name: str, folder: Path = STORED) -> list[Result]:
    """Return the newest stored results of a recipe, or nothing."""
    newest = max((folder / "runs").glob(f"*-{name}.jsonl"), default=None)
    return load_results(newest) if newest else []


def store(name: str, recipe: Recipe, folder: Path, line: str) -> Path:
    """Store the results of an experiment and its tables. Return the path of the tables."""
    results = load_results(recipe.out / RESULTS)
    runs = folder / "runs" / f"{today()}-{name}.jsonl"
    runs.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(recipe.out / RESULTS, runs)
    path = folder / f"{today()}-{name}.md"
    made = body(name, results, recipe, stored_results("transfer", folder))
    path.write_text(f"# {recipe.title}\n\n{line}\n\n{made}", encoding="utf-8")
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(recipe_names()))
    parser.add_argument("--reduced", action="store_true", help="two targets and two seeds")
    parser.add_argument("--targets", nargs="+", help="targets instead of the recipe's")
    parser.add_argument("--seeds", nargs="+", type=int, help="seeds instead of the recipe's")
    parser.add_argument("--jobs", type=int, default=2, help="runs at the same time")
    arguments = parser.parse_args()
    from flows.environment import prepare

    prepare()
    from flows.build import build
    from flows.experiment import experiment

    catalog = load(Build, CATALOG)
    if not (catalog.out / "catalog.json").is_file():
        build(catalog)
    for name in arguments.names or recipe_names():
        axes = {"jobs": arguments.jobs, **(REDUCED if arguments.reduced else {})}
        axes |= {"targets": tuple(arguments.targets)} if arguments.targets else {}
        axes |= {"seeds": tuple(arguments.seeds)} if arguments.seeds else {}
        recipe = open_recipe(recipe_of(name), axes=axes)
        folder = STORED
        if arguments.reduced:
            folder = Path("runs/reproduced")
            recipe = recipe.model_copy(update={"out": folder / name})
        experiment(recipe)
        print(store(name, recipe, folder, headline()).read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
