"""Experiments: runs on one catalog that differ in settings, targets or seeds, and their comparison.

A run is trained once. Its result is a line of OUT/results.jsonl, and the tables and the page are
computed from these lines.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prefect.futures import PrefectFuture, as_completed
from prefect.logging import get_run_logger

from data_catalog.format.manifest import read_manifest
from data_catalog.transfer.mirror import local_folder
from flows.artifacts import artifact_key, show_page, show_runs, stage_progress
from flows.build import build as build_catalog
from flows.events import tag_flow_run
from flows.experiment_results import PAGE, read_result, write_results
from flows.pages.run import write_report
from flows.progress import progress_bar
from flows.recipe import PlannedRun, Recipe, planned_runs
from flows.runners import task_runner
from flows.served import served_flow
from flows.train import ProcessCount, launch
from flows.training_check import check_training
from pipeline.config import Build
from trainer.config import Train
from trainer.state.resume import check_identity

MAXIMUM_JOBS = 64
MAXIMUM_CURVES = 24  # maximum number of runs on the page with their curves


@served_flow(
    name="experiment",
    flow_run_name="experiment {recipe.out}",
    task_runner=task_runner("threads", MAXIMUM_JOBS),
)
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
        build_catalog(catalog)
        recipe = recipe.model_copy(update={"run": {**recipe.run, "catalog": str(catalog.out)}})
    runs = checked_runs(recipe)
    _warn_of_repetition(runs)
    _train(runs, recipe, processes)
    write_results(recipe, [read_result(run) for run in runs])
    show_page(artifact_key("experiment", recipe.out.name, "comparison"), recipe.out / PAGE)
    folders = [run.config.folder for run in runs]
    if len(folders) <= MAXIMUM_CURVES:
        page = write_report(
            folders, recipe.out / "report.html", local_folder(runs[0].config.catalog)
        )
        show_runs(artifact_key("experiment", recipe.out.name), folders, page)
    return str(recipe.out)


def checked_runs(recipe: Recipe) -> list[PlannedRun]:
    """Return the runs of a recipe, each with the steps that it can afford.

    Raises:
        UserError: A variant has invalid settings, or a finished run had other settings.
    """
    runs = planned_runs(recipe)
    for run in runs:
        check_training(run.config)
    if recipe.equal_compute:
        charged = {run.config.folder: run.with_steps(_affordable_steps(run.config)) for run in runs}
        planned = {run.config.folder: run.config.training.steps for run in runs}
        # A run that replays another of its length is compared with it, and has the steps of it.
        runs = [
            run.with_steps(charged[source].config.training.steps)
            if (source := run.follows) and planned[source] == planned[out]
            else charged[out]
            for out, run in zip(charged, runs, strict=True)
        ]
    for run in runs:
        require_same_run(run.config)
    return runs


def _warn_of_repetition(runs: Sequence[PlannedRun]) -> None:
    scarce = dict.fromkeys(
        f"{run.config.target} at {run.epochs:g}"
        for run in runs
        if run.epochs is not None and run.config.data.as_if_tokens is None
    )
    if scarce:
        get_run_logger().warning(
            "The catalog has too little data for these epochs: %s. These runs draw from all of it "
            "and repeat it more often, as the tables say.",
            ", ".join(scarce),
        )


def _affordable_steps(config: Train) -> float:
    """Return the number of steps for which training and measuring cost as much as training."""
    from trainer.preview import preview  # noqa: PLC0415 - imports torch

    if not config.mixture.learns:
        return config.training.steps
    return config.training.steps / (1.0 + preview(config).scoring_share)


def require_same_run(config: Train) -> None:
    """Check that a finished run in the folder of a config has the same config and catalog.

    Raises:
        UserError: It has others.
    """
    if is_finished(config.folder):
        version = config.data.version
        manifest = read_manifest(local_folder(config.catalog, version), version)
        identity = {"fingerprint": config.fingerprint(), "catalog": manifest.fingerprint}
        settings = config.model_dump(mode="json", exclude={"catalog", "out", "checkpoint"})
        check_identity(config.folder, identity, settings)


def _train(runs: Sequence[PlannedRun], recipe: Recipe, processes: int) -> None:
    """Train the runs that are not finished, `recipe.jobs` at a time."""
    waiting = [run for run in runs if not is_finished(run.config.folder)]
    update, done = stage_progress("runs", len(runs)), len(runs) - len(waiting)
    update(done, "")
    if recipe.jobs == 1:  # each run shows its own progress
        for run in waiting:
            _launch(run)(run.config, processes)
            done += 1
            update(done, run.config.out.name)
        return
    threads = max(1, (os.cpu_count() or 1) // recipe.jobs)
    running: dict[PrefectFuture[None], PlannedRun] = {}
    with progress_bar("experiment", len(waiting), "runs") as advance:

        def wait_for(number: int) -> None:
            nonlocal done
            while len(running) > number:
                future = next(as_completed(list(running)))
                run = running.pop(future)
                future.result()
                result = read_result(run)
                note = (
                    f"{run.config.out.name}: {result.test:.3f} and {result.general:.3f} bits/byte"
                )
                done += 1
                advance(1, note)
                update(done, note)

        for run in waiting:
            wait_for(recipe.jobs - 1)
            if not all(is_finished(other) for other in (run.follows, run.reference) if other):
                wait_for(0)
            running[_launch(run).submit(run.config, processes, threads=threads)] = run
        wait_for(0)


def _launch(run: PlannedRun) -> Any:
    return launch.with_options(task_run_name=f"train {run.config.out.name}")


def is_finished(run: Path) -> bool:
    """Return whether the run in a folder is finished."""
    return (run / "model").is_dir()
