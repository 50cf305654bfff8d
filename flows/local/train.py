"""Training a run."""

import logging
import time
from collections.abc import Sequence

from data_catalog.disk import is_passing
from data_catalog.place import Folder
from data_catalog.transfer.mirror import local_folder
from data_catalog.transfer.run_copy import local_run
from flows.environment import prepare_work
from flows.nodes import Nodes
from flows.pages.run import write_report
from flows.trainer_process import AcceptableChange, run_trainer
from flows.training_check import check_training
from trainer.config import Train

TRAINING_ATTEMPTS = 3  # of a training
TRAINING_RETRY_SECONDS = 5.0

logger = logging.getLogger(__name__)


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
    run_with_retries(config, processes, accept, verify, nodes=nodes)
    with local_run(config.out) as folder:
        write_report([folder], config.out / "report.html", local_folder(config.catalog))
    return config.out


def run_with_retries(
    config: Train,
    processes: int,
    accept: Sequence[str] = (),
    verify: bool = True,
    threads: int | None = None,
    nodes: Nodes | None = None,
) -> None:
    """Run the trainer, and again after a failure that may pass. See `run_trainer`."""
    for attempt in range(1, TRAINING_ATTEMPTS + 1):
        try:
            run_trainer(config, processes, accept, verify, threads, nodes)
            return
        except Exception as error:
            if attempt == TRAINING_ATTEMPTS or nodes is not None or not is_passing(error):
                raise
            first_line = str(error).partition("\n")[0]
            logger.warning("%s; starting again from the last checkpoint", first_line)
            time.sleep(TRAINING_RETRY_SECONDS)
