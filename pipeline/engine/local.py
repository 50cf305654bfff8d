"""The parts of a stage in threads or processes of this machine, a bounded number at once.

A part that fails is tried again if that may help. A process that dies costs nothing but the parts
that were running: the sidecar of a part decides whether it is done.
"""

import logging
import multiprocessing
import os
import signal
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ThreadPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool, ProcessPoolExecutor
from contextlib import contextmanager
from typing import Any, Literal

from data_catalog.disk import is_passing
from pipeline.engine.worker import MAXIMUM_ATTEMPTS, Called, call_collecting
from pipeline.parts import Part

RunnerName = Literal["threads", "processes"]
DEFAULT_THREADS = 4
MAXIMUM_LOCAL_DEATHS = 3  # of processes while a part was running
PART_RETRY_SECONDS = 1.0
QUEUED_PER_WORKER = 2  # parts given to the pool at once, so that a worker that is free finds one

logger = logging.getLogger(__name__)


class LocalStages:
    """Runs stages on this machine. It is an `Each`. Use it in a `with` block.

    Threads are the right choice for most builds: torch, FAISS, DuckDB and Arrow release Python's
    lock, and the encoder is loaded only once. An interrupted block does not wait for its parts,
    which may need hours and are discarded anyway.

    Args:
        runner: Kind of workers.
        workers: Number of workers. Default: 4 threads, or one process per core.
        initializer: Called at the start of each process.
    """

    def __init__(
        self,
        runner: RunnerName = "threads",
        workers: int | None = None,
        initializer: Callable[[], None] | None = None,
    ) -> None:
        default = DEFAULT_THREADS if runner == "threads" else os.cpu_count() or 1
        self._runner, self._workers, self._initializer = runner, workers or default, initializer
        self._pool = self._new_pool()

    def __enter__(self) -> "LocalStages":
        return self

    def __exit__(self, exc_type: type[BaseException] | None, *_: object) -> None:
        interrupted = exc_type is not None and not issubclass(exc_type, Exception)
        if interrupted and isinstance(self._pool, ProcessPoolExecutor):
            for process in list((self._pool._processes or {}).values()):
                process.terminate()
        self._pool.shutdown(wait=not interrupted, cancel_futures=True)

    def __call__(
        self,
        stage: str,
        function: Callable[..., Part],
        calls: Sequence[tuple[Any, ...]],
        on_part: Callable[[Part], None] = lambda _: None,
    ) -> list[Part]:
        """Run the parts of a stage and return their results in order.

        Args:
            stage: Name of the stage.
            function: Function that processes one part.
            calls: Arguments of `function`, one tuple per part.
            on_part: Called with each part as it is finished.

        Raises:
            RuntimeError: Processes died repeatedly, for example because memory does not suffice.
            Exception: A part's own error. Parts that were running are finished first.
        """
        done: dict[int, Part] = {}
        failures: Counter[int] = Counter()
        deaths: Counter[int] = Counter()
        waiting = deque(range(len(calls)))
        running: dict[Future[Called], int] = {}
        while len(done) < len(calls):
            while waiting and len(running) < self._workers * QUEUED_PER_WORKER:
                number = waiting.popleft()
                running[self._submit(function, calls[number])] = number
            died = []
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                number = running.pop(future)
                try:
                    called = future.result()
                except BrokenProcessPool:
                    died.append(number)
                except Exception as error:
                    failures[number] += 1
                    if failures[number] == MAXIMUM_ATTEMPTS or not is_passing(error):
                        _cancel(running)
                        raise
                    logger.info("%s: again, after %s: %s", stage, type(error).__name__, error)
                    time.sleep(PART_RETRY_SECONDS)
                    waiting.append(number)
                else:
                    done[number] = called.part
                    for warning in called.warnings:
                        logger.warning("%s", warning)
                    on_part(called.part)
            if died:
                died += running.values()  # they fail too
                running.clear()
                deaths.update(died)
                if max(deaths.values()) == MAXIMUM_LOCAL_DEATHS:
                    raise RuntimeError(
                        f"{stage}: worker processes died {MAXIMUM_LOCAL_DEATHS} times, perhaps "
                        "because memory does not suffice. Use fewer workers (--workers)."
                    )
                self._pool.shutdown(wait=False, cancel_futures=True)
                self._pool = self._new_pool()
                waiting.extendleft(sorted(died, reverse=True))
        return [done[number] for number in range(len(calls))]

    def _new_pool(self) -> Executor:
        if self._runner == "threads":
            return ThreadPoolExecutor(self._workers, thread_name_prefix="part")
        context = multiprocessing.get_context("spawn")
        return ProcessPoolExecutor(self._workers, context, self._initializer)

    def _submit(
        self, function: Callable[..., Part], arguments: tuple[Any, ...]
    ) -> "Future[Called]":
        if self._runner == "threads":
            return self._pool.submit(_call, function, *arguments)
        with _signals_blocked():
            return self._pool.submit(call_collecting, function, *arguments)


def _call(function: Callable[..., Part], *arguments: Any) -> Called:
    """Call the function of a part. Its warnings are logged in this process already."""
    return Called(function(*arguments), [])


def _cancel(running: "dict[Future[Called], int]") -> None:
    """Cancel parts that have not begun, and wait for the others."""
    wait([future for future in running if not future.cancel()])


@contextmanager
def _signals_blocked() -> Iterator[None]:
    """Block Ctrl-C in processes that start in the block. They would print its traceback."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
