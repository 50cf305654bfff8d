"""Prefect's task runners for the parts of a stage on one machine, and the retry policy.

Parts run in threads or processes. The choice does not affect the catalog.
"""

import multiprocessing
import os
import signal
from typing import Any, Self

from prefect.task_runners import ProcessPoolTaskRunner, TaskRunner, ThreadPoolTaskRunner

from data_catalog.disk import is_passing
from flows.parent_watch import stop_with_main_process
from flows.prefect_environment import prepare
from pipeline.engine.local import RunnerName


def task_runner(name: RunnerName = "threads", workers: int | None = None) -> TaskRunner[Any]:
    """Return a Prefect task runner.

    Threads are the right choice on one machine: torch, FAISS, DuckDB and Arrow release Python's
    lock, and the encoder is loaded only once.

    Args:
        name: Kind of runner.
        workers: Number of workers. Default: 4 threads, or one process per core.
    """
    match name:
        case "threads":
            return InterruptibleThreads(max_workers=workers or 4)
        case "processes":
            return InterruptibleProcesses(
                max_workers=workers or os.cpu_count(), initializer=prepare_worker
            )


def worth_a_retry(_task: Any, _run: Any, state: Any) -> bool:
    """Return whether a retry of a task may help."""
    failure = state.result(raise_on_failure=False)
    return not isinstance(failure, BaseException) or is_passing(failure)


class InterruptibleThreads(ThreadPoolTaskRunner[Any]):
    """Threads that an interrupted flow does not wait for.

    The current part may need hours, and an unfinished part is discarded anyway.
    """

    def __exit__(self, exc_type: Any, exc_value: Any, traceback: Any) -> None:
        if is_interruption(exc_type) and self._executor is not None:
            self._executor.shutdown(wait=False, cancel_futures=True)
            self._executor = None
        super().__exit__(exc_type, exc_value, traceback)


class InterruptibleProcesses(ProcessPoolTaskRunner):
    """Processes that are terminated when the flow is interrupted.

    Ctrl-C on a terminal does not reach them. They would print its traceback.
    """

    def __enter__(self) -> Self:
        self._earlier_processes = set(multiprocessing.active_children())
        return super().__enter__()

    def submit(self, *arguments: Any, **options: Any) -> Any:
        """Submit a task. Processes and the threads that start them inherit blocked signals."""
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGHUP})
        try:
            return super().submit(*arguments, **options)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def __exit__(self, exc_type: Any, exc_value: Any, traceback: Any) -> None:
        if is_interruption(exc_type):
            for process in set(multiprocessing.active_children()) - self._earlier_processes:
                process.terminate()
        super().__exit__(exc_type, exc_value, traceback)


def is_interruption(exc_type: type[BaseException] | None) -> bool:
    """Return whether a flow ends on request: Ctrl-C, SIGTERM or a cancellation.

    The exceptions of these are not subclasses of `Exception`.
    """
    return exc_type is not None and not issubclass(exc_type, Exception)


def prepare_worker() -> None:
    """Initialise a worker process."""
    prepare()
    stop_with_main_process()
