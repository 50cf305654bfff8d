"""AdamW and its learning-rate schedule."""

import math

import torch
from torch import nn

from trainer.config import Optimizer

FINAL_SHARE = 0.1  # of the peak learning rate, where a cosine ends
DECAY_SHARE = 0.2  # of the steps, that "wsd" (warm up, stay, decay) spends on its way to zero


def build_optimizer(model: nn.Module, config: Optimizer) -> torch.optim.AdamW:
    """AdamW; vectors (norms, biases) are not decayed."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]], lr=config.learning_rate, betas=(config.beta1, config.beta2), fused=True
    )


def learning_rate(config: Optimizer, step: int, steps: int) -> float:
    """Learning rate of step `step` (from 0) of `steps`: a linear rise over the warm-up, then the schedule."""
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    if config.schedule == "constant":
        return config.learning_rate
    if config.schedule == "wsd":
        decay_steps = max(round(DECAY_SHARE * steps), 1)
        return config.learning_rate * min(1.0, (steps - step) / decay_steps)
    progress = (step - config.warmup_steps) / max(steps - config.warmup_steps, 1)
    return config.learning_rate * (FINAL_SHARE + (1 - FINAL_SHARE) * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0))))


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate
