"""Where the parts of a stage run: threads, processes, Dask or Ray. The catalog is the same."""

import os
from typing import Any, Literal, get_args

from prefect.task_runners import ProcessPoolTaskRunner, TaskRunner, ThreadPoolTaskRunner

from flows.environment import prepare

Runner = Literal["threads", "processes", "dask", "ray"]
RUNNERS = get_args(Runner)


def task_runner(name: Runner = "threads", workers: int | None = None) -> TaskRunner[Any]:
    """A Prefect task runner with this many workers (default: 4 threads, or a process a core).

    Threads are right on one machine: torch, FAISS, DuckDB and Arrow leave Python's lock, and the encoder is loaded once.

    Raises:
        ModuleNotFoundError: Dask or Ray is asked for, and `prefect-dask` or `prefect-ray` is not installed.
    """
    match name:
        case "threads":
            return ThreadPoolTaskRunner(max_workers=workers or 4)
        case "processes":
            return ProcessPoolTaskRunner(max_workers=workers or os.cpu_count(), initializer=prepare)
        case "dask":
            from prefect_dask import DaskTaskRunner  # noqa: PLC0415

            return DaskTaskRunner(cluster_kwargs={"n_workers": workers or os.cpu_count(), "threads_per_worker": 1})
        case "ray":
            from prefect_ray import RayTaskRunner  # noqa: PLC0415

            return RayTaskRunner(init_kwargs={"num_cpus": workers or os.cpu_count()})
