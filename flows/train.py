"""Training as a Prefect flow. The trainer's process is in `flows/trainer_process.py`."""

from collections.abc import Sequence

from prefect import tags, task
from prefect.cache_policies import NO_CACHE

from data_catalog.transfer.mirror import local_folder
from data_catalog.transfer.run_copy import local_run
from flows.artifacts import show_runs, stage_progress
from flows.events import emit_run_finished, tag_flow_run
from flows.nodes import Nodes
from flows.pages.run import write_report
from flows.runners import worth_a_retry
from flows.served import served_flow
from flows.trainer_process import AcceptableChange, ProcessCount, run_trainer
from flows.training_check import check_training
from trainer.config import Train


@served_flow(name="train", flow_run_name="train {config.out}")
def train(
    config: Train,
    processes: ProcessCount = 1,
    accept: tuple[AcceptableChange, ...] = (),
    verify: bool = True,
    nodes: Nodes | None = None,
) -> str:
    """Train on a catalog and write the run's page, RUN/report.html. Return the run's folder.

    A stopped run resumes from its last checkpoint.

    Args:
        config: The training. Relative paths start at the folder that the flow runs in.
        processes: Number of training processes, e.g. one per GPU.
        accept: Resume a run although these have changed since it began.
        verify: Compare the catalog's files with their checksums, once per machine.
        nodes: The machines of the run, on each of which this flow runs. None: this machine.

    Raises:
        UserError: The config or its catalog is invalid, or the trainer refused to resume.
        TrainingError: The trainer failed three times. The second and third attempt started from the
            last checkpoint.
    """
    check_training(config)
    tag_flow_run("clustermix", "train", config.catalog.name, config.mixture.mixer)
    with tags(config.catalog.name):
        # torch's launcher starts the processes of several machines again, all at once.
        retries = 2 if nodes is None else 0
        launch.with_options(task_run_name=f"train {config.mixture.mixer}", retries=retries)(
            config, processes, accept, verify, nodes=nodes
        )
    with local_run(config.out) as folder:
        page = write_report([folder], config.out / "report.html", local_folder(config.catalog))
        show_runs(f"run-{config.out.name}", [folder], page)
        emit_run_finished(config.out, folder)
    return str(config.out)


@task(
    tags={"clustermix", "clustermix-train"},
    retries=2,
    retry_delay_seconds=5,
    retry_condition_fn=worth_a_retry,
    cache_policy=NO_CACHE,
)
def launch(
    config: Train,
    processes: int,
    accept: Sequence[str] = (),
    verify: bool = True,
    threads: int | None = None,
    nodes: Nodes | None = None,
) -> None:
    """Run the trainer to the end of the run, see `run_trainer`."""
    on_step = stage_progress("train", config.steps)
    run_trainer(config, processes, accept, verify, threads, nodes, on_step)
