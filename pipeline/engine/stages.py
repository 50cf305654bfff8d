"""The parts of a stage as Ray tasks: largest first, a bounded number at once, results in order.

A part that fails is tried again if that may help. A machine that disappears costs nothing but the
parts that it was making: the sidecar of a part decides whether it is done.
"""

import logging
import pickle
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayActorError, RayError, RayTaskError

from data_catalog.disk import is_passing
from data_catalog.place import Place
from pipeline.engine.gpus import PARTS_PER_GPU, GpuPool, Loaded
from pipeline.engine.needs import Machine, Needs, largest_first, shared_arguments, stage_needs
from pipeline.engine.worker import MAXIMUM_ATTEMPTS, Called, Expected, call_part_without_gpu
from pipeline.parts import Part

MAXIMUM_DEATHS = 8  # of processes that a part ran in
WAITING_PER_CORE = 2  # parts in Ray's queue, so that a core that is free finds one
SHARED_BYTES = 100_000  # from this size on, an argument of several parts is sent once per machine
RESIZE_SECONDS = 5.0  # between two looks at the size of the cluster
POLL_SECONDS = 0.5  # maximum time without a look at signals
CANCEL_SECONDS = 1.0  # for parts to remove what they have begun

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Running:
    """A part that was given to Ray."""

    number: int
    process: Loaded | None  # the process that has it, on a GPU


class RayStages:
    """Runs stages on the Ray cluster that this process is connected to. It is an `Each`.

    Args:
        expected: What the workers have to find.
        memory: Memory in megabytes of the parts of some stages, by the stage's name.
    """

    def __init__(self, expected: Expected, memory: Mapping[str, int]) -> None:
        self._expected, self._memory = ray.put(expected), memory
        self._gpus = GpuPool()

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
            RuntimeError: A part has ended too many processes, for example because the memory of
                its machine does not suffice.
            Exception: A part's own error.
        """
        done: dict[int, Part] = {}
        failures: Counter[int] = Counter()
        deaths: Counter[int] = Counter()
        waiting = deque(largest_first(calls))
        with _Submission(self, stage, function, calls) as submission:
            while len(done) < len(calls):
                while waiting and submission.has_room():
                    submission.start(waiting.popleft())
                for number, outcome in submission.finished():
                    name = submission.name(number)
                    match outcome:
                        case Called():
                            done[number] = outcome.part
                            for warning in outcome.warnings:
                                logger.warning("%s", warning)
                            on_part(outcome.part)
                            continue
                        case RayTaskError():
                            failures[number] += 1
                            _raise_if_final(outcome, failures[number])
                        case _:
                            deaths[number] += 1
                            if deaths[number] == MAXIMUM_DEATHS:
                                raise RuntimeError(
                                    f"{name}: {MAXIMUM_DEATHS} processes have died with it"
                                ) from outcome
                    logger.info("%s: again, after %s", name, type(outcome).__name__)
                    waiting.append(number)
        return [done[number] for number in range(len(calls))]

    def close(self) -> None:
        """End the processes that hold GPUs."""
        self._gpus.close()


class _Submission:
    """The parts of one stage that Ray has. At the end of the block, unfinished ones are cancelled.

    Args:
        stages: The cluster's.
        stage: Name of the stage.
        function: Function that processes one part.
        calls: Arguments of `function`, one tuple per part.
    """

    def __init__(
        self,
        stages: RayStages,
        stage: str,
        function: Callable[..., Part],
        calls: Sequence[tuple[Any, ...]],
    ) -> None:
        self._stages, self._stage, self._calls = stages, stage, calls
        self._function = function
        self._running: dict[Any, _Running] = {}
        self._shared = {
            key: ray.put(argument)
            for key, argument in shared_arguments(calls).items()
            if len(pickle.dumps(argument)) >= SHARED_BYTES
        }
        self._task = ray.remote(call_part_without_gpu)
        self._looked, self._room, self._needs = float("-inf"), 0, Needs()

    def __enter__(self) -> "_Submission":
        return self

    def __exit__(self, *_: object) -> None:
        references = list(self._running)
        with suppress(RayError, ConnectionError, RuntimeError):  # the cluster may be gone
            for reference in references:
                ray.cancel(reference, force=False)
            if references:
                ray.wait(references, num_returns=len(references), timeout=CANCEL_SECONDS)

    def name(self, number: int) -> str:
        """Return the name of a part, such as `quality/part-00013`."""
        folder = next(word for word in self._calls[number] if isinstance(word, Path | Place))
        return f"{self._stage}/{folder.name}"

    def has_room(self) -> bool:
        """Return whether Ray should get another part now."""
        if time.monotonic() - self._looked >= RESIZE_SECONDS:
            self._looked = time.monotonic()
            machines = _machines()
            self._needs = stage_needs(self._stage, len(self._calls), machines, self._stages._memory)
            cpus = sum(machine.cpus for machine in machines)
            self._room = max(int(cpus * WAITING_PER_CORE), 1)
            if self._needs.gpu:
                gpus = int(sum(machine.gpus for machine in machines))
                self._stages._gpus.resize(gpus)
                self._room = max(gpus, 1) * PARTS_PER_GPU
        return len(self._running) < self._room

    def start(self, number: int) -> None:
        """Give a part to Ray."""
        name, needs = self.name(number), self._needs
        arguments = [self._shared.get(id(word), word) for word in self._calls[number]]
        call = (self._stages._expected, self._function, name, *arguments)
        process = None
        if needs.gpu:
            reference, process = self._stages._gpus.submit(name, *call)
        else:
            task = self._task.options(
                name=name, num_cpus=needs.cpus, memory=needs.memory or None, max_retries=0
            )
            reference = task.remote(*call)
        self._running[reference] = _Running(number, process)

    def finished(self) -> Iterator[tuple[int, Called | RayError]]:
        """Yield the number of each part that has ended, and its result or error.

        Waits for at most `POLL_SECONDS`.
        """
        waiting = list(self._running)
        ready, _ = ray.wait(waiting, num_returns=1, timeout=POLL_SECONDS)
        if ready:  # others may have ended meanwhile
            ready, _ = ray.wait(waiting, num_returns=len(waiting), timeout=0)
        for reference in ready:
            running = self._running.pop(reference)
            try:
                outcome: Called | RayError = ray.get(reference)
            except RayError as error:
                outcome = error
            if running.process is not None:
                self._stages._gpus.finish(running.process, isinstance(outcome, RayActorError))
            yield running.number, outcome


def _machines() -> list[Machine]:
    return [
        Machine(
            *(float(node["Resources"].get(name, 0)) for name in ("CPU", "GPU", "memory")),
        )
        for node in ray.nodes()
        if node["Alive"]
    ]


def _raise_if_final(error: RayTaskError, attempts: int) -> None:
    """Raise the error that a part raised, unless another attempt may help."""
    cause = error.cause if isinstance(error.cause, Exception) else RuntimeError(str(error))
    if attempts == MAXIMUM_ATTEMPTS or not is_passing(cause):
        raise cause
