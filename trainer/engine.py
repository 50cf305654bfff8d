"""Forward and backward passes of one model, in micro-batches, on however many processes."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedModel

from trainer.config import Training
from trainer.data import Batch
from trainer.distributed import Team
from trainer.model import LanguageLoss


@dataclass(frozen=True)
class Engine:
    """`model` is the plain model, whose parameters are the truth, sharded or not; `loss` is what is called: it and its loss, wrapped."""

    model: PreTrainedModel
    loss: nn.Module  # (inputs, labels) -> Losses
    team: Team
    training: Training

    def backward(self, batch: Batch, *, shared: bool = True) -> tuple[Float[Tensor, ""], Float[Tensor, " sequences"]]:
        """Add the gradient of the global batch's mean loss to `.grad`; `batch` is this process's part of it, on any device.

        Args:
            shared: whether `.grad` then holds the sum over all processes, or the share of this process alone.

        Returns:
            This process's share of the mean loss in nats per token, fp64; and each of its sequences' sum of nats, fp32.
        """
        total, sums = torch.zeros((), dtype=torch.float64, device=self.team.device), []
        for inputs, labels in self._micro(batch):
            losses = self.loss(inputs, labels)
            (losses.total / batch.total).backward()
            total += losses.sequences.double().sum() / batch.total
            sums.append(losses.sequences)
        if shared:
            self.team.sum_gradients(self.parameters().values())
        return total, torch.cat(sums) if sums else total.new_zeros(0, dtype=torch.float32)

    @torch.no_grad()
    def losses(self, batch: Batch) -> Float[Tensor, " sequences"]:
        """Each sequence's sum of nats, fp32."""
        sums = [self.loss(inputs, labels).sequences for inputs, labels in self._micro(batch)]
        return torch.cat(sums) if sums else torch.zeros(0, device=self.team.device)

    def parameters(self) -> dict[str, nn.Parameter]:
        """The trainable ones by name, tied ones once."""
        return {name: p for name, p in self.model.named_parameters() if p.requires_grad}

    def clear(self) -> None:
        for parameter in self.model.parameters():
            parameter.grad = None

    def clip(self, most: float) -> float:
        """Scale the gradient down to norm `most` if it is longer; return the norm it had."""
        return float(torch.nn.utils.clip_grad_norm_(self.model.parameters(), most))

    def _micro(self, batch: Batch) -> Iterator[tuple[Tensor, Tensor]]:
        batch, size = batch.to(self.team.device), self.training.micro_batch_sequences
        for inputs, labels in zip(torch.split(batch.inputs, size), torch.split(batch.labels, size), strict=True):
            if len(inputs):
                yield inputs, labels


def build_engine(model: PreTrainedModel, training: Training, team: Team) -> Engine:
    """Put `model` on the team's device and wrap it as `training` says."""
    model.to(team.device)  # type: ignore[arg-type]
    return Engine(model, LanguageLoss(model, training.precision), team, training)
