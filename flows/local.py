"""Builds, trainings and experiments in this process, without Prefect.

The commands call these functions if no Prefect server is named. `flows/build.py`, `flows/train.py`
and `flows/experiment.py` do the same as Prefect flows.
"""

import logging
import time
from collections.abc import Sequence
from pathlib import Path

from data_catalog.disk import is_passing
from data_catalog.place import Folder
from data_catalog.transfer.mirror import local_folder
from data_catalog.transfer.run_copy import local_run
from flows.building import add_to_catalog, build_catalog
from flows.environment import prepare_work
from flows.experiment_runs import checked_runs, train_and_compare
from flows.nodes import Nodes
from flows.pages.run import write_report
from flows.parent_watch import stop_with_main_process
from flows.recipe import PlannedRun, Recipe
from flows.stage_display import displayed
from flows.trainer_process import AcceptableChange, run_trainer
from flows.training_check import check_training
from pipeline.config import Addition, Build
from pipeline.engine.config import Cluster
from pipeline.engine.local import LocalStages, RunnerName
from trainer.config import Train

MAXIMUM_ATTEMPTS = 3  # of a training
RETRY_SECONDS = 5.0

logger = logging.getLogger(__name__)


def build(
    config: Build,
    runner: RunnerName = "threads",
    workers: int | None = None,
    cluster: Cluster | None = None,
) -> Folder:
    """Build a catalog and its page, CATALOG/report.html. Return the catalog's folder.

    Work that is already done with the same config is reused.

    Args:
        config: The build.
        runner: Kind of workers on this machine.
        workers: Number of workers. Default: 4 threads, or one process per core.
        cluster: Ray cluster that makes the parts instead.

    Raises:
        UserError: The config, the data or the cluster cannot be used.
    """
    prepare_work()
    with LocalStages(runner, workers, _prepare_worker) as stages:
        return build_catalog(config, displayed(stages), cluster, displayed)


def add(
    catalog: Folder,
    addition: Addition,
    runner: RunnerName = "threads",
    workers: int | None = None,
    cluster: Cluster | None = None,
) -> Folder:
    """Add documents or targets to a catalog as a new version. Return the catalog's folder.

    Args:
        catalog: A finished catalog.
        addition: A source, targets or both.
        runner: Kind of workers on this machine.
        workers: Number of workers. Default: 4 threads, or one process per core.
        cluster: Ray cluster that makes the parts instead.

    Raises:
        UserError: The addition, the catalog or the cluster cannot be used.
    """
    prepare_work()
    with LocalStages(runner, workers, _prepare_worker) as stages:
        return add_to_catalog(catalog, addition, displayed(stages), cluster, displayed)


def train(
    config: Train,
    processes: int = 1,
    accept: Sequence[AcceptableChange] = (),
    verify: bool = True,
    nodes: Nodes | None = None,
) -> Folder:
    """Train on a catalog and write the run's page, RUN/report.html. Return the run's folder.

    A stopped run resumes from its last checkpoint.

    Args:
        config: The training.
        processes: Number of training processes, e.g. one per GPU.
        accept: Resume a run although these have changed since it began.
        verify: Compare the catalog's files with their checksums, once per machine.
        nodes: The machines of the run, on each of which this is called. None: this machine.

    Raises:
        UserError: The config or its catalog is invalid, or the trainer refused to resume.
        TrainingError: The trainer failed three times, from the second time on after its last
            checkpoint. With `nodes`, torch's launcher repeats it instead.
    """
    prepare_work()
    check_training(config)
    _train(config, processes, accept, verify, nodes=nodes)
    with local_run(config.out) as folder:
        write_report([folder], config.out / "report.html", local_folder(config.catalog))
    return config.out


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
        _train(run.config, processes, threads=threads)

    train_and_compare(recipe, checked_runs(recipe), train_one)
    return recipe.out


def _train(
    config: Train,
    processes: int,
    accept: Sequence[str] = (),
    verify: bool = True,
    threads: int | None = None,
    nodes: Nodes | None = None,
) -> None:
    """Run the trainer. Run it again after a failure that may pass."""
    for attempt in range(1, MAXIMUM_ATTEMPTS + 1):
        try:
            run_trainer(config, processes, accept, verify, threads, nodes)
            return
        except Exception as error:
            if attempt == MAXIMUM_ATTEMPTS or nodes is not None or not is_passing(error):
                raise
            first_line = str(error).partition("\n")[0]
            logger.warning("%s; starting again from the last checkpoint", first_line)
            time.sleep(RETRY_SECONDS)


def _prepare_worker() -> None:
    prepare_work()
    stop_with_main_process()
