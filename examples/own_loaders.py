"""A mixture behind the interfaces of two training codes: torchtitan's and nanochat's data loaders.

Both codes call `mixture.after_step(model)` after the step of their optimizer. nanochat saves
`mixture.state_dict()` with its checkpoints. torchtitan saves that of its data loader, which is the
same. Sharded models are not measured: learn the mixture on a small model, and follow it with
`mixture={"mixer": "replay", "file": "runs/small"}`.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from trainer.library import LoopMixture


class MixtureDataLoader:
    """The interface of `torchtitan.components.dataloader.BaseDataLoader`."""

    def __init__(
        self, mixture: LoopMixture, *, dp_rank: int, dp_world_size: int, local_batch_size: int
    ) -> None:
        """Make a loader of one data-parallel rank."""
        self._mixture, self._size = mixture, local_batch_size
        self._dataset = mixture.dataset(local_batch_size, rank=dp_rank, world=dp_world_size)

    def __iter__(self) -> Iterator[tuple[dict[str, Tensor], Tensor]]:
        """Yield the inputs and the labels of each local batch."""
        for batch in DataLoader(self._dataset, batch_size=self._size):
            yield {"input": batch["input_ids"]}, batch["labels"]

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the mixture."""
        return self._mixture.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from a state. It is empty if training begins."""
        if state_dict:
            self._mixture.load_state_dict(state_dict)


def nanochat_loader(
    mixture: LoopMixture, device_batch_size: int, *, rank: int, world: int, device: str
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield inputs and targets, as `tokenizing_distributed_data_loader` of nanochat does."""
    dataset = mixture.dataset(device_batch_size, rank=rank, world=world)
    for batch in DataLoader(dataset, batch_size=device_batch_size):
        yield batch["input_ids"].to(torch.device(device)), batch["labels"].to(torch.device(device))
