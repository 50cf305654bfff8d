"""The processes of a run: who this one is, and small sums over all of them. Gradients are summed by `parallel.py`."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

CPU = torch.device("cpu")
DRAIN_SECONDS = 0.1


@dataclass(frozen=True)
class Team:
    """This process among `world` of them."""

    rank: int = 0
    world: int = 1
    device: torch.device = CPU

    @property
    def leads(self) -> bool:
        return self.rank == 0

    def sum(self, tensor: Tensor) -> Tensor:
        """Add up `tensor` over all processes, in place."""
        if self.world > 1:
            dist.all_reduce(tensor)
        return tensor

    def most(self, number: int) -> int:
        """The largest of all processes' numbers; no GPU waits for it."""
        if self.world == 1:
            return number
        found = torch.tensor(number)
        dist.all_reduce(found, dist.ReduceOp.MAX)
        return int(found)

    def gather(self, text: str) -> list[str]:
        """What every process says, in the order of the ranks."""
        texts: list[str] = [text] * self.world
        if self.world > 1:
            dist.all_gather_object(texts, text)
        return texts

    def wait(self) -> None:
        if self.world > 1:
            dist.barrier()


@contextmanager
def join_team() -> Iterator[Team]:
    """Join the other processes that torchrun started; alone without it. Uses the GPU of the local rank if there is one."""
    rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    local = int(os.environ.get("LOCAL_RANK", "0"))
    device = torch.device("cuda", local) if torch.cuda.is_available() else CPU
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if (
        world > 1
    ):  # tensors on the CPU travel too: counts that no GPU need wait for, and checkpoints
        dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
    try:
        yield Team(rank, world, device)
    finally:
        if world > 1:
            time.sleep(
                DRAIN_SECONDS
            )  # without Python's lock, which the threads of the last collective need to let go of its tensors
            dist.destroy_process_group()


def process_slice(count: int, rank: int, world: int) -> slice:
    """Return the items of `count` that belong to process `rank` of `world`.

    The slices of all processes, in rank order, cover `range(count)` exactly once. Their sizes differ
    by at most one.
    """
    return slice(rank * count // world, (rank + 1) * count // world)
