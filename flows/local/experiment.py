"""Training and comparing the runs of an experiment."""

from pathlib import Path

from flows.environment import prepare_work
from flows.experiment_runs import checked_runs, train_and_compare
from flows.local.train import run_with_retries
from flows.recipe import PlannedRun, Recipe


def experiment(recipe: Recipe, processes: int = 1) -> Path:
    """Train the runs of a recipe and compare them. Return the experiment's folder, OUT.

    Args:
        recipe: The experiment.
        processes: Number of training processes per run, e.g. one per GPU.

    Raises:
        UserError: A variant has invalid settings. Raised before training.
        TrainingError: A training failed three times.
    """
    prepare_work()

    def train_one(run: PlannedRun, threads: int | None) -> None:
        run_with_retries(run.config, processes, threads=threads)

    train_and_compare(recipe, checked_runs(recipe), train_one)
    return recipe.out
