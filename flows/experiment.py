"""Experiments: runs on one catalog that differ in settings, targets or seeds, and their comparison.

A run is trained once. Its result is a line of OUT/results.jsonl, and the tables and the page are
computed from these lines.
"""

from flows.artifacts import artifact_key, show_page, show_runs, stage_progress
from flows.build import build as build_flow
from flows.events import tag_flow_run
from flows.experiment_results import PAGE
from flows.experiment_runs import checked_runs, train_and_compare
from flows.recipe import PlannedRun, Recipe
from flows.served import served_flow
from flows.train import launch
from flows.trainer_process import ProcessCount
from pipeline.config import Build


@served_flow(name="experiment", flow_run_name="experiment {recipe.out}")
def experiment(recipe: Recipe, catalog: Build | None = None, processes: ProcessCount = 1) -> str:
    """Train the runs of a recipe and compare them. Return the experiment's folder, OUT.

    OUT/results.jsonl has a line per run, OUT/results.md the tables, OUT/experiment.html the tables
    with charts, and OUT/report.html the runs' curves if they are few. The runs are in OUT/runs.
    Finished runs are kept: repeated with more variants, targets, repetitions or seeds, the flow
    trains only the new runs.

    Args:
        recipe: The experiment. Relative paths start at the folder that the flow runs in.
        catalog: Catalog to build before training, unless it is already built.
        processes: Number of training processes per run, e.g. one per GPU.

    Raises:
        UserError: A variant has invalid settings. Raised before training.
        TrainingError: A training failed three times.
    """
    tag_flow_run("clustermix", "experiment", recipe.out.name)
    if catalog is not None:
        build_flow(catalog)
        recipe = recipe.model_copy(update={"run": {**recipe.run, "catalog": str(catalog.out)}})
    runs = checked_runs(recipe)

    def train_one(run: PlannedRun, threads: int | None) -> None:
        task = launch.with_options(task_run_name=f"train {run.config.out.name}")
        task(run.config, processes, threads=threads)

    page = train_and_compare(recipe, runs, train_one, stage_progress("runs", len(runs)))
    show_page(artifact_key("experiment", recipe.out.name, "comparison"), recipe.out / PAGE)
    if page is not None:
        folders = [run.config.folder for run in runs]
        show_runs(artifact_key("experiment", recipe.out.name), folders, page)
    return str(recipe.out)
