"""Run an experiment of `configs/experiment_*.toml` and store its results and its tables.

Catalogs are built if they do not exist. Finished runs are kept. The results of all runs are stored,
a line per run, so that the tables can be computed again without the runs.
"""

import argparse
import shutil
from pathlib import Path
from typing import Any

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
CATALOGS = (CONFIGS / "sample_small.toml", CONFIGS / "sample_few.toml")
TARGETS = Path("../shared/corpus/targets")
STORED = ROOT / "benchmarks" / "results"
# `--reduced` has the recipe's targets that are among these, and one seed.
REDUCED_TARGETS = ("heldout_law", "heldout_biomed", "law_16")
# Documents of the targets that `few_targets` makes from others, of which a fifth is validation.
FEW = {"law_16": 20, "law_64": 80, "encyclopedia_16": 20, "encyclopedia_64": 80}


def recipe_of(name: str) -> Path:
    """Return the path of a recipe."""
    return CONFIGS / f"experiment_{name}.toml"


def recipe_names() -> list[str]:
    """Return the names of all recipes."""
    prefix = "experiment_"
    return sorted(path.stem.removeprefix(prefix) for path in CONFIGS.glob(f"{prefix}*.toml"))


def few_targets(source: Path, folder: Path) -> None:
    """Write the targets in `source`, and some that have only their first documents, to `folder`."""
    for path in (path for path in source.rglob("*") if path.is_file()):
        copy = folder / path.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
    for name, documents in FEW.items():
        whole, made = folder / f"heldout_{name.partition('_')[0]}", folder / name
        made.mkdir(exist_ok=True)
        shutil.copyfile(whole / "test.jsonl", made / "test.jsonl")
        lines = (whole / "train.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
        (made / "train.jsonl").write_text("".join(lines[:documents]), encoding="utf-8")


def require_catalog(folder: Path) -> None:
    """Build the catalog in a folder with the config that has it as its `out`, if it is missing."""
    from flows.build import build

    if (folder / "catalog.json").is_file():
        return
    [config] = [c for c in (load(Build, path) for path in CATALOGS) if c.out == folder]
    made = config.out.with_name(f"{config.out.name}_targets")
    if config.targets_below == made:
        few_targets(TARGETS, made)
    build(config)


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
    parser.add_argument("--reduced", action="store_true", help="two targets and one seed")
    parser.add_argument("--targets", nargs="+", help="targets instead of the recipe's")
    parser.add_argument("--seeds", nargs="+", type=int, help="seeds instead of the recipe's")
    parser.add_argument("--jobs", type=int, default=2, help="runs at the same time")
    arguments = parser.parse_args()
    from flows.environment import prepare

    prepare()
    from flows.experiment import experiment

    for name in arguments.names or recipe_names():
        axes: dict[str, Any] = {"jobs": arguments.jobs}
        axes |= {"targets": tuple(arguments.targets)} if arguments.targets else {}
        axes |= {"seeds": tuple(arguments.seeds)} if arguments.seeds else {}
        recipe = open_recipe(recipe_of(name), axes=axes)
        folder = STORED
        if arguments.reduced:
            folder = Path("runs/reproduced")
            targets = tuple(target for target in recipe.targets if target in REDUCED_TARGETS)
            reduced = {"out": folder / name, "targets": targets, "seeds": recipe.seeds[:1]}
            recipe = recipe.model_copy(update=reduced)
        require_catalog(Path(recipe.run["catalog"]))
        experiment(recipe)
        print(store(name, recipe, folder, headline()).read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
