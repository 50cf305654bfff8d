"""AdamW and its learning-rate schedule."""

import math
from typing import Protocol

import torch
from torch import nn

from trainer.config import Optimizer, Schedule

FINAL_SHARE = 0.1  # of the peak learning rate, where a cosine ends
DECAY_SHARE = 0.2  # of the steps, that "wsd" (warm up, stay, decay) spends on its way to zero


class ScheduleSettings(Protocol):
    """A phase's learning rates: the settings `optimizer`, or `finetune`."""

    @property
    def learning_rate(self) -> float: ...  # the peak

    @property
    def schedule(self) -> Schedule: ...

    @property
    def warmup_steps(self) -> int: ...


def build_optimizer(model: nn.Module, config: Optimizer) -> torch.optim.AdamW:
    """AdamW; vectors (norms, biases) are not decayed."""
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


def learning_rate(rates: ScheduleSettings, step: int, steps: int) -> float:
    """Learning rate of step `step` (from 0) of a phase of `steps`: a linear rise over the warm-up, then the schedule.

    cosine: falls to a tenth of the peak (Hoffmann et al. 2022). wsd: stays at the peak and falls linearly to zero over the last fifth
    of the steps (Hu et al. 2024; Hägele et al. 2024). constant: stays.
    """
    peak, warmup_steps = rates.learning_rate, rates.warmup_steps
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    if rates.schedule == "constant":
        return peak
    if rates.schedule == "wsd":
        return peak * min(1.0, (steps - step) / max(round(DECAY_SHARE * steps), 1))
    progress = (step - warmup_steps) / max(steps - warmup_steps, 1)
    return peak * (
        FINAL_SHARE + (1 - FINAL_SHARE) * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))
    )


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate
