"""Run experiments of `configs/experiment_*.toml` and store their results and their tables.

`nightly` is all of them, and `release` all of them with five seeds. Catalogs are built if they do
not exist. Finished runs are kept. The results of all runs are stored, a line per run, so that the
tables can be computed again without the runs.
"""

import argparse
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.goals import answers, table
from benchmarks.hardware import headline, today
from data_catalog.errors import UserError
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
# `--reduced` has one seed, and the recipe's targets that are among these, or its first.
REDUCED_TARGETS = ("heldout_law", "heldout_biomed", "law_16")
SEEDS_OF_ALL = {"nightly": None, "release": (0, 1, 2, 3, 4)}  # None: those of each recipe
# Factors of `--scale gpu`: models of 4 to 28 million parameters, with the vocabulary aside, and 128
# times as many tokens. The catalog needs as many.
GPU_FACTORS: dict[tuple[str, str], float] = {
    ("model", "hidden_size"): 8,
    ("model", "layers"): 3,
    ("training", "steps"): 8,
    ("training", "batch_sequences"): 4,
    ("training", "micro_batch_sequences"): 4,
    ("training", "sequence_tokens"): 4,
    ("optimizer", "learning_rate"): 0.25,
    ("optimizer", "warmup_steps"): 8,
    ("evaluation", "every_steps"): 8,
    ("mixture", "update_every_steps"): 8,
    ("finetune", "steps"): 8,
    ("finetune", "learning_rate"): 0.25,
    ("data", "tokens_per_domain"): 128,
}
GPU = "-gpu"  # end of the names of such results
GPU_HEAD = 64  # hidden size per attention head
# Documents of the targets that `few_targets` makes from others, of which a fifth is validation.
FEW = {"law_16": 20, "law_64": 80, "encyclopedia_16": 20}


def recipe_of(name: str) -> Path:
    """Return the path of a recipe, by its name or that of its results."""
    return CONFIGS / f"experiment_{name.removesuffix(GPU)}.toml"


def recipe_names() -> list[str]:
    """Return the names of all recipes."""
    prefix = "experiment_"
    return sorted(path.stem.removeprefix(prefix) for path in CONFIGS.glob(f"{prefix}*.toml"))


def gpu_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a run or a variant at the scale of a GPU."""
    made = {
        key: dict(value) if isinstance(value, Mapping) else value for key, value in settings.items()
    }
    for (section, key), factor in GPU_FACTORS.items():
        if key in made.get(section, {}):
            scaled = made[section][key] * factor
            made[section][key] = scaled if isinstance(made[section][key], float) else round(scaled)
    if "heads" in made.get("model", {}):
        made["model"]["heads"] = made["model"]["hidden_size"] // GPU_HEAD
    return made


def gpu_recipe(recipe: Recipe) -> Recipe:
    """Return a recipe at the scale of a GPU, in a folder of its own."""
    run = gpu_settings(recipe.run)
    run["training"]["precision"] = "bfloat16"
    variants = {name: gpu_settings(settings) for name, settings in recipe.variants.items()}
    out = recipe.out.with_name(recipe.out.name + GPU)
    return recipe.model_copy(update={"out": out, "run": run, "variants": variants})


def few_targets(source: Path, folder: Path) -> None:
    """Write targets of `source`, and some that have only their first documents, to `folder`."""
    for path in (path for path in source.glob("heldout_*/*") if path.is_file()):
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
    if name.removesuffix(GPU) == "frontier":
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
    made = body(name, results, recipe, stored_results(name.replace("frontier", "transfer"), folder))
    path.write_text(f"# {recipe.title}\n\n{line}\n\n{made}", encoding="utf-8")
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    known = ", ".join([*SEEDS_OF_ALL, *recipe_names()])
    parser.add_argument("names", nargs="*", metavar="NAME", default=["nightly"], help=known)
    parser.add_argument("--scale", choices=("cpu", "gpu"), default="cpu", help="size of the models")
    parser.add_argument("--catalog", help="catalog instead of the recipe's, which has its targets")
    parser.add_argument("--reduced", action="store_true", help="two targets and one seed")
    parser.add_argument("--targets", nargs="+", help="targets instead of the recipe's")
    parser.add_argument("--seeds", nargs="+", type=int, help="seeds instead of the recipe's")
    parser.add_argument("--jobs", type=int, default=2, help="runs at the same time")
    arguments = parser.parse_args()
    from flows.prefect_environment import prepare

    prepare()
    from flows.experiment import experiment

    seeds = {
        name: SEEDS_OF_ALL.get(given)
        for given in arguments.names
        for name in (recipe_names() if given in SEEDS_OF_ALL else [given])
    }
    options = [word for word in sys.argv[1:] if word not in arguments.names]
    for name, of_all in seeds.items():
        axes: dict[str, Any] = {"jobs": arguments.jobs, **({"seeds": of_all} if of_all else {})}
        axes |= {"targets": tuple(arguments.targets)} if arguments.targets else {}
        axes |= {"seeds": tuple(arguments.seeds)} if arguments.seeds else {}
        recipe = open_recipe(recipe_of(name), axes=axes)
        folder = STORED
        if arguments.reduced:
            folder = Path("runs/reproduced")
            among = [target for target in recipe.targets if target in REDUCED_TARGETS]
            targets = tuple(among) or recipe.targets[:1]
            reduced = {"out": folder / name, "targets": targets, "seeds": recipe.seeds[:1]}
            recipe = recipe.model_copy(update=reduced)
        if arguments.catalog:
            run = {**recipe.run, "catalog": arguments.catalog}
            recipe = recipe.model_copy(update={"run": run})
        else:
            require_catalog(Path(recipe.run["catalog"]))
        stored = name
        if arguments.scale == "gpu":
            recipe, stored = gpu_recipe(recipe), name + GPU
        experiment(recipe)
        line = headline([name, *options])
        print(store(stored, recipe, folder, line).read_text(encoding="utf-8"))


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        print(f"benchmarks.experiments: {error}", file=sys.stderr)
        sys.exit(2)
