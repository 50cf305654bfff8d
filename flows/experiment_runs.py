"""The runs of an experiment: which there are, and training those that are not finished."""

import logging
import os
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextvars import copy_context
from pathlib import Path

from data_catalog.transfer.mirror import local_folder
from flows.experiment_results import read_result, write_results
from flows.pages.run import write_report
from flows.progress import progress_bar
from flows.recipe import PlannedRun, Recipe, planned_runs
from flows.training_check import check_training, is_finished, require_same_run
from trainer.config import Train

MAXIMUM_CURVES = 24  # maximum number of runs on the page with their curves

logger = logging.getLogger(__name__)

# Trains a run, with this number of threads per process, or None for all cores and a bar.
TrainOne = Callable[[PlannedRun, int | None], None]


def train_and_compare(
    recipe: Recipe,
    runs: Sequence[PlannedRun],
    train_one: TrainOne,
    on_run: Callable[[int, str], None] = lambda _done, _note: None,
) -> Path | None:
    """Train the runs of a recipe that are not finished, and write the experiment's files.

    Args:
        recipe: The experiment.
        runs: Its runs, see `checked_runs`.
        train_one: Trains one run. It may be called in several threads.
        on_run: Called with the number of finished runs and a note.

    Returns:
        The page with the runs' curves, or None if there are too many of them.
    """
    _warn_of_repetition(runs)
    _train(runs, recipe.jobs, train_one, on_run)
    write_results(recipe, [read_result(run) for run in runs])
    folders = [run.config.folder for run in runs]
    if len(folders) > MAXIMUM_CURVES:
        return None
    return write_report(folders, recipe.out / "report.html", local_folder(runs[0].config.catalog))


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
        logger.warning(
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


def _train(
    runs: Sequence[PlannedRun],
    jobs: int,
    train_one: TrainOne,
    on_run: Callable[[int, str], None],
) -> None:
    """Train the runs that are not finished, `jobs` at a time."""
    missing = [run for run in runs if not is_finished(run.config.folder)]
    done = len(runs) - len(missing)
    on_run(done, "")
    if jobs == 1:  # each run shows its own progress
        for run in missing:
            train_one(run, None)
            done += 1
            on_run(done, run.config.out.name)
        return
    threads = max(1, (os.cpu_count() or 1) // jobs)
    running: dict[Future[None], PlannedRun] = {}
    pool = ThreadPoolExecutor(jobs, thread_name_prefix="run")
    with progress_bar("experiment", len(missing), "runs") as advance:

        def wait_for(number: int) -> None:
            nonlocal done
            while len(running) > number:
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    run = running.pop(future)
                    future.result()
                    result = read_result(run)
                    losses = f"{result.test:.3f} and {result.general:.3f} bits/byte"
                    note = f"{run.config.out.name}: {losses}"
                    done += 1
                    advance(1, note)
                    on_run(done, note)

        try:
            for run in missing:
                wait_for(jobs - 1)
                if not all(is_finished(other) for other in (run.follows, run.reference) if other):
                    wait_for(0)
                # Prefect finds the flow run of a task in the context.
                running[pool.submit(copy_context().run, train_one, run, threads)] = run
            wait_for(0)
        except Exception:  # the other runs are finished first
            pool.shutdown(cancel_futures=True)
            raise
        finally:
            pool.shutdown(wait=False)
