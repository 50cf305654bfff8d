"""AdamW and its learning-rate schedule."""

import math
from typing import Protocol, runtime_checkable

import torch
from torch import nn

from trainer.config import Optimizer, Schedule, Train

FINAL_SHARE = 0.1  # final learning rate of a cosine schedule, as a share of the peak
DECAY_SHARE = 0.2  # share of the steps in which a "wsd" (warmup-stable-decay) schedule decays


@runtime_checkable
class ScheduleSettings(Protocol):
    """Learning-rate settings of a phase: the config section `optimizer` or `finetune`."""

    @property
    def learning_rate(self) -> float:
        """Peak learning rate."""
        ...

    @property
    def schedule(self) -> Schedule:
        """Shape of the schedule after the warmup."""
        ...

    @property
    def warmup_steps(self) -> int:
        """Number of steps of linear warmup."""
        ...


def build_optimizer(model: nn.Module, config: Optimizer) -> torch.optim.AdamW:
    """Return AdamW for the trainable parameters. Norms and biases have no weight decay."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=config.learning_rate,
        betas=(config.beta1, config.beta2),
        fused=True,
    )


def learning_rate(settings: ScheduleSettings, step: int, steps: int) -> float:
    """Return the learning rate of a step: linear warmup, then the schedule.

    * cosine: falls to a tenth of the peak (Hoffmann et al. 2022).
    * wsd: stays at the peak, then falls linearly to zero over the last fifth of the steps
      (Hu et al. 2024; Haegele et al. 2024).
    * constant: stays at the peak.

    Args:
        settings: the phase's settings.
        step: number of the step, from 0.
        steps: number of steps of the phase.
    """
    peak, warmup_steps = settings.learning_rate, settings.warmup_steps
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    if settings.schedule == "constant":
        return peak
    if settings.schedule == "wsd":
        return peak * min(1.0, (steps - step) / max(round(DECAY_SHARE * steps), 1))
    progress = min((step - warmup_steps) / max(steps - warmup_steps, 1), 1.0)
    return peak * (FINAL_SHARE + (1 - FINAL_SHARE) * 0.5 * (1 + math.cos(math.pi * progress)))


def learning_rate_at(config: Train, step: int) -> float:
    """Return the learning rate of a step of the whole run, counted over both of its phases."""
    first_finetune_step = config.training.steps
    if step < first_finetune_step:
        return learning_rate(config.optimizer, step, config.training.steps)
    return learning_rate(config.finetune, step - first_finetune_step, config.finetune.steps)


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of all parameter groups."""
    for group in optimizer.param_groups:
        group["lr"] = rate
