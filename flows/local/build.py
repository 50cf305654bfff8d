"""Building a catalog, and adding to it, in threads or processes of this machine or on Ray."""

from data_catalog.place import Folder
from flows.building import add_to_catalog, build_catalog
from flows.environment import prepare_work
from flows.parent_watch import stop_with_main_process
from flows.stage_display import displayed
from pipeline.config import Addition, Build
from pipeline.engine.config import Cluster
from pipeline.engine.local import LocalStages, RunnerName


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


def _prepare_worker() -> None:
    prepare_work()
    stop_with_main_process()
