"""Forward and backward passes of one model, in micro-batches, on however many processes."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel

from data_catalog.format.tokens import IGNORED
from trainer.config import Training
from trainer.distributed import Team
from trainer.model.model import LanguageLoss
from trainer.model.parallel import (
    decoder_layers,
    gradients_summed,
    prepare_layers,
    replicate,
    shard,
)
from trainer.sampling.batches import Batch

MicroBatch = tuple[
    Int[Tensor, "sequences tokens"], Int[Tensor, "sequences tokens"]
]  # inputs and labels
BITS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}  # by the bytes of an element


@dataclass(frozen=True)
class Engine:
    """`model` is the plain model, whose parameters are the truth, sharded or not; `loss` is what is called: it and its loss, wrapped."""

    model: PreTrainedModel
    loss: nn.Module  # (inputs, labels) -> Losses
    team: Team
    training: Training

    @property
    def sharded(self) -> bool:
        """Whether each process holds a shard of every parameter and gradient (DTensors), so that all must run every pass together."""
        return isinstance(self.loss, FSDPModule)

    def backward(
        self, batch: Batch, *, shared: bool = True
    ) -> tuple[Float[Tensor, ""], Float[Tensor, " sequences"]]:
        """Add the gradient of the global batch's mean loss to `.grad`; `batch` is this process's part of it, on any device.

        Args:
            shared: whether `.grad` then holds the sum over all processes, of what it held before too: so clear it first; or the share
                of this process alone, which takes no word from the others. A sharded engine always sums: there, all processes call
                this together, and those without a sequence with an empty batch.

        Returns:
            This process's share of the mean loss in nats per token, fp64; and each of its sequences' sum of nats, fp32.
        """
        total, sums = torch.zeros((), dtype=torch.float64, device=self.team.device), []
        for inputs, labels in self.micro_batches(batch, shared=shared):
            losses = self.loss(inputs, labels)
            (losses.total / batch.total).backward()
            total += losses.sequences.double().sum() / batch.total
            sums.append(losses.sequences)
        return total, self._of(batch, sums)

    @torch.no_grad()
    def losses(self, batch: Batch) -> Float[Tensor, " sequences"]:
        """Each sequence's sum of nats, fp32. All processes of a sharded engine call this together."""
        return self._of(
            batch,
            [
                self.loss(inputs, labels).sequences
                for inputs, labels in self.micro_batches(batch, shared=False)
            ],
        )

    def micro_batches(self, batch: Batch, *, shared: bool) -> Iterator[MicroBatch]:
        """The batch in parts, on the device, for a loop that runs one forward and one backward pass on each.

        Gradients are summed over the processes in the backward pass of the last part, if `shared` (see `backward`). Where another
        process has more parts than this one, parts of one wholly masked sequence come at the end: a collective waits for everyone.
        """
        batch, size = batch.to(self.team.device), self.training.micro_batch_sequences
        parts = (
            list(zip(torch.split(batch.inputs, size), torch.split(batch.labels, size), strict=True))
            if len(batch.inputs)
            else []
        )
        wanted = self.team.most(len(parts)) if self.sharded else int(shared and self.team.world > 1)
        nothing = batch.inputs.new_zeros(1, batch.inputs.shape[1])
        parts += [(nothing, torch.full_like(nothing, IGNORED))] * (wanted - len(parts))
        for number, part in enumerate(parts, start=1):
            with gradients_summed(
                self.loss, last=number == len(parts) and (shared or self.sharded)
            ):
                yield part

    def parameters(self) -> dict[str, nn.Parameter]:
        """The trainable ones by name, tied ones once."""
        return {name: p for name, p in self.model.named_parameters() if p.requires_grad}

    def clear(self) -> None:
        for parameter in self.model.parameters():
            parameter.grad = None

    def clip(self, most: float) -> float:
        """Scale the gradient down to norm `most` if it is longer; return the norm it had."""
        parameters = [p for p in self.model.parameters() if p.grad is not None]
        norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        if isinstance(norm, DTensor):
            norm = norm.full_tensor()  # every process only knows its own shards'
        nn.utils.clip_grads_with_norm_(parameters, most, norm)
        return float(norm)

    @torch.no_grad()
    def digest(self) -> str:
        """A hash of the weights, the same on all processes if they agree; all call it together. Reads every parameter once.

        The bits of each tensor's elements are summed as integers: the order of a sum does not matter to them, nor how it is sharded.
        """
        locals_ = [p.to_local() if isinstance(p, DTensor) else p for p in self.model.parameters()]
        sums = torch.stack(
            [p.contiguous().view(BITS[p.element_size()]).sum(dtype=torch.int64) for p in locals_]
        )
        if self.sharded:
            self.team.sum(sums)
        return hashlib.sha256(sums.cpu().numpy().tobytes()).hexdigest()[:16]

    def _of(self, batch: Batch, sums: list[Tensor]) -> Float[Tensor, " sequences"]:
        """The batch's own sequences; what was added for the sake of other processes is at the end."""
        return (
            torch.cat(sums)[: len(batch.inputs)]
            if sums
            else torch.zeros(0, device=self.team.device)
        )


def build_engine(model: PreTrainedModel, training: Training, team: Team) -> Engine:
    """Put `model` on the team's device and wrap it as `training` says, in place.

    An optimizer is built after this: sharding changes the parameters. With one process `training.parallel` does not matter.
    """
    model.to(team.device)  # type: ignore[arg-type]
    layers = decoder_layers(model)
    prepare_layers(layers, compiled=training.compile, checkpointed=training.checkpoint_activations)
    loss: nn.Module = LanguageLoss(model, training.precision)
    if team.world > 1 and training.parallel == "fsdp2":
        shard(loss, layers, training.precision, team)  # in place
    elif team.world > 1:
        loss = replicate(loss, team)
    return Engine(model, loss, team, training)
