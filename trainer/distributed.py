"""The processes of a run, and small collectives over them.

Gradients are summed by `trainer.model.parallel`.
"""

import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from data_catalog.errors import UserError

Result = TypeVar("Result")

CPU = torch.device("cpu")
DRAIN_SECONDS = 0.1


@dataclass(frozen=True)
class Team:
    """This process among the `world` processes of a run."""

    rank: int = 0
    world: int = 1
    device: torch.device = CPU
    local_rank: int = 0
    local_world: int = 1
    """Number of processes on this machine."""

    @property
    def leads_machine(self) -> bool:
        """True for one process of each machine."""
        return self.local_rank == 0

    @property
    def is_leader(self) -> bool:
        """True if this process writes the run's files."""
        return self.rank == 0

    def sum(self, tensor: Tensor) -> Tensor:
        """Sum `tensor` over all processes, in place, and return it."""
        if self.world > 1:
            dist.all_reduce(tensor)
        return tensor

    def maximum(self, number: int) -> int:
        """Return the maximum of `number` over all processes, without waiting for a GPU."""
        if self.world == 1:
            return number
        result = torch.tensor(number)
        dist.all_reduce(result, dist.ReduceOp.MAX)
        return int(result)

    def gather(self, text: str) -> list[str]:
        """Return the `text` of every process, in rank order."""
        texts: list[str] = [text] * self.world
        if self.world > 1:
            dist.all_gather_object(texts, text)
        return texts

    def wait(self) -> None:
        """Wait until all processes have called this."""
        if self.world > 1:
            dist.barrier()


@contextmanager
def join_team() -> Iterator[Team]:
    """Join the processes that torchrun started, or run as a single process without it.

    Uses the GPU of the local rank if there is one.
    """
    rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    local_world = int(os.environ.get("LOCAL_WORLD_SIZE", str(world)))
    device = torch.device("cuda", local_rank) if torch.cuda.is_available() else CPU
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if world > 1:
        # CPU tensors are communicated too: checkpoints, and counts that must not wait for a GPU.
        dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
    try:
        yield Team(rank, world, device, local_rank, local_world)
    finally:
        if world > 1:
            # Sleeping releases Python's global lock, which the threads of the last collective need
            # to release its tensors.
            time.sleep(DRAIN_SECONDS)
            dist.destroy_process_group()


def on_all(team: Team, work: Callable[[], Result]) -> Result:
    """Return `work()`. All processes call this together.

    Raises:
        UserError: `work` raised it on a process. All processes raise it. If it is not the same on
            all, it names the machine.
    """
    if team.world == 1:
        return work()
    result, fault = None, None
    try:
        result = work()
    except UserError as error:
        fault = error
    told = [
        json.loads(text)
        for text in team.gather(json.dumps([socket.gethostname(), str(fault or "")]))
    ]
    if not any(sentence for _, sentence in told):
        return result  # type: ignore[return-value]
    if fault is not None and all(sentence == str(fault) for _, sentence in told):
        raise fault
    host, sentence = next((host, sentence) for host, sentence in told if sentence)
    raise UserError(f"{host}: {sentence}")


def process_slice(count: int, rank: int, world: int) -> slice:
    """Return the items of `count` that belong to process `rank` of `world`.

    The slices of all processes, in rank order, cover `range(count)` exactly once. Their sizes
    differ by at most one.
    """
    return slice(rank * count // world, (rank + 1) * count // world)
