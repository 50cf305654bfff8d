"""Where the parts of a stage run: threads, processes, Dask or Ray; and which failures are tried again. The catalog is the same."""

import multiprocessing
import os
from typing import Any, Literal, Self

from prefect.task_runners import ProcessPoolTaskRunner, TaskRunner, ThreadPoolTaskRunner

from data_catalog.errors import AccountingError, UserError
from flows.environment import prepare
from flows.parent_watch import stop_with_parent

RunnerName = Literal["threads", "processes", "dask", "ray"]


def task_runner(name: RunnerName = "threads", workers: int | None = None) -> TaskRunner[Any]:
    """A Prefect task runner with this many workers (default: 4 threads, or a process a core).

    Threads are right on one machine: torch, FAISS, DuckDB and Arrow leave Python's lock, and the encoder is loaded once.

    Raises:
        ModuleNotFoundError: Dask or Ray is asked for, and `prefect-dask` or `prefect-ray` is not installed.
    """
    match name:
        case "threads":
            return InterruptibleThreads(max_workers=workers or 4)
        case "processes":
            return InterruptibleProcesses(
                max_workers=workers or os.cpu_count(), initializer=prepare_worker
            )
        case "dask":
            from prefect_dask import DaskTaskRunner  # noqa: PLC0415

            return DaskTaskRunner(
                cluster_kwargs={"n_workers": workers or os.cpu_count(), "threads_per_worker": 1}
            )
        case "ray":
            from prefect_ray import RayTaskRunner  # noqa: PLC0415

            return RayTaskRunner(init_kwargs={"num_cpus": workers or os.cpu_count()})


def worth_a_retry(_task: Any, _run: Any, state: Any) -> bool:
    """A broken disk or network may heal; a wrong request or a lost document will not."""
    failure = state.result(raise_on_failure=False)
    return not isinstance(failure, (UserError, AccountingError))


class InterruptibleThreads(ThreadPoolTaskRunner[Any]):
    """Threads that an interrupted flow does not wait for: the part under way may take hours, and a part that is not finished is nothing."""

    def __exit__(self, exc_type: Any, exc_value: Any, traceback: Any) -> None:
        if is_interruption(exc_type) and self._executor is not None:
            self._executor.shutdown(wait=False, cancel_futures=True)
            self._executor = None
        super().__exit__(exc_type, exc_value, traceback)


class InterruptibleProcesses(ProcessPoolTaskRunner):
    """Processes that end with the flow, however it ends."""

    def __enter__(self) -> Self:
        self._others = set(multiprocessing.active_children())
        return super().__enter__()

    def __exit__(self, exc_type: Any, exc_value: Any, traceback: Any) -> None:
        if is_interruption(exc_type):
            for process in set(multiprocessing.active_children()) - self._others:
                process.terminate()
        super().__exit__(exc_type, exc_value, traceback)


def is_interruption(exc_type: type[BaseException] | None) -> bool:
    """Whether a flow ends because somebody wants it to: Ctrl-C, SIGTERM, a cancellation. These are no `Exception`."""
    return exc_type is not None and not issubclass(exc_type, Exception)


def prepare_worker() -> None:
    """What a worker process does first."""
    prepare()
    stop_with_parent()
