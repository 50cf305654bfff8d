"""The processes of a run: who this one is, and sums over all of them.

Gradients are summed here, by hand, once a step, rather than by a wrapper around the model: a rank may then run any number of
micro-batches and scoring passes without a hook firing. It gives up the overlap of communication and backward.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

CPU = torch.device("cpu")
BUCKET_ELEMENTS = 16 * 1024 * 1024  # of a flat copy: few calls, and 64 MB more memory


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

    def sum_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Replace every gradient by its sum over all processes; a parameter without one counts as zero."""
        if self.world == 1:
            return
        for bucket in _buckets(parameters):
            gradients = [p.grad if p.grad is not None else torch.zeros_like(p) for p in bucket]
            flat = self.sum(torch.cat([g.reshape(-1) for g in gradients]))
            for parameter, part in zip(bucket, torch.split(flat, [p.numel() for p in bucket]), strict=True):
                parameter.grad = part.view_as(parameter).clone()

    def gather(self, text: str) -> list[str]:
        """What every process says, in the order of the ranks."""
        texts: list[str] = [text] * self.world
        if self.world > 1:
            dist.all_gather_object(texts, text)
        return texts

    def wait(self) -> None:
        if self.world > 1:
            dist.barrier()


def _buckets(parameters: Iterable[torch.nn.Parameter]) -> Iterator[list[torch.nn.Parameter]]:
    bucket: list[torch.nn.Parameter] = []
    for parameter in parameters:
        if bucket and sum(p.numel() for p in bucket) + parameter.numel() > BUCKET_ELEMENTS:
            yield bucket
            bucket = []
        bucket.append(parameter)
    if bucket:
        yield bucket


@contextmanager
def team() -> Iterator[Team]:
    """Join the other processes that torchrun started; alone without it. Uses the GPU of the local rank if there is one."""
    rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    local = int(os.environ.get("LOCAL_RANK", "0"))
    device = torch.device("cuda", local) if torch.cuda.is_available() else torch.device("cpu")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if world > 1:
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield Team(rank, world, device)
    finally:
        if world > 1:
            dist.destroy_process_group()
