"""One process per GPU of a cluster, which keeps its models loaded from part to part.

Ray's own tasks end their process after each part on a GPU, because a process that Ray uses again
for another GPU stays on the first one.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import ray

from pipeline.engine.worker import Called, Expected, call_part
from pipeline.parts import Part

PARTS_PER_GPU = 2  # one reads and tokenizes its texts while the other computes


class GpuProcess:
    """The process of a GPU. Its models are those that `pipeline.embed.encoder` keeps."""

    def call(
        self,
        expected: Expected,
        function: Callable[..., Part],
        name: str,
        *arguments: Any,
    ) -> Called:
        """Call the function of a part, see `pipeline.engine.worker.call_part`."""
        return call_part(expected, function, name, *arguments)


@dataclass(eq=False)
class Loaded:
    """A process of a GPU, and the number of parts that it has."""

    actor: Any
    parts: int = 0


class GpuPool:
    """The processes of all GPUs. Parts go to the one with the fewest."""

    def __init__(self) -> None:
        self._processes: list[Loaded] = []

    def resize(self, gpus: int) -> None:
        """Start processes until there is one per GPU. At least one waits for a GPU."""
        actor = ray.remote(GpuProcess).options(
            num_cpus=1, num_gpus=1, max_concurrency=PARTS_PER_GPU
        )
        while len(self._processes) < max(gpus, 1):
            self._processes.append(Loaded(actor.remote()))

    def submit(self, name: str, *arguments: Any) -> tuple[Any, Loaded]:
        """Start a part. Return the reference of its result, and its process."""
        chosen = min(self._processes, key=lambda process: process.parts)
        chosen.parts += 1
        return chosen.actor.call.options(name=name).remote(*arguments), chosen

    def finish(self, process: Loaded, died: bool) -> None:
        """Note that a part of a process has ended, or that the process has died."""
        process.parts -= 1
        if died and process in self._processes:
            self._processes.remove(process)

    def close(self) -> None:
        """End all processes."""
        while self._processes:
            ray.kill(self._processes.pop().actor)
