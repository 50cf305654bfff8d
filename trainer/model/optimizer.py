"""AdamW or Muon, and the learning-rate schedule."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from trainer.config import LearningRate, Optimizer, Train

FINAL_SHARE = {"cosine": 0.1, "wsd": 0.0, "constant": 1.0}  # of the peak, if not set


class _Float32OnCpu(TorchFunctionMode):
    """Runs Muon's iteration in float32 on a processor, which is slow in bfloat16."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func is Tensor.bfloat16 and args[0].device.type == "cpu":
            return args[0].to(torch.float32, copy=True)  # Muon changes it in place.
        return func(*args, **(kwargs or {}))


class MuonWithAdamW(torch.optim.Optimizer):
    """Muon for some matrices and AdamW for all other parameters, as one optimizer.

    Both share its state and its groups, so that checkpoints and learning rates need not know. A
    group of Muon has the key `momentum`.
    """

    def __init__(self, muon: torch.optim.Muon, adamw: torch.optim.AdamW) -> None:
        super().__init__([*muon.param_groups, *adamw.param_groups], {})
        self._parts = (muon, adamw)
        muon.param_groups = [group for group in self.param_groups if is_muon(group)]
        adamw.param_groups = [group for group in self.param_groups if not is_muon(group)]
        for part in self._parts:
            part.state = self.state

    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Take one step with the present gradients, or with those of `closure`."""
        with _Float32OnCpu():
            for number, part in enumerate(self._parts):
                part.step(closure if number == 0 else None)


def is_muon(group: dict[str, Any]) -> bool:
    """Return whether a parameter group of an optimizer is updated by Muon."""
    return "momentum" in group


def build_optimizer(model: nn.Module, config: Optimizer) -> torch.optim.Optimizer:
    """Return the optimizer of the trainable parameters.

    Norms and biases have no weight decay, and embeddings only with `decay_embeddings`. Muon takes
    the matrices of the layers. Embeddings, the output layer, and what is not a matrix are left to
    AdamW, as Muon's authors recommend.
    """
    tables = {id(p) for p in token_tables(model)}
    parameters = [p for p in model.parameters() if p.requires_grad]
    matrices = [p for p in parameters if p.ndim == 2 and id(p) not in tables]
    muon = matrices if config.kind == "muon" else []
    taken = {id(p) for p in muon}
    decayed, others = list[nn.Parameter](), list[nn.Parameter]()
    for parameter in (p for p in parameters if id(p) not in taken):
        is_decayed = parameter.ndim >= 2 and (
            config.decay_embeddings or id(parameter) not in tables
        )
        (decayed if is_decayed else others).append(parameter)
    groups = [
        {"params": decayed, "weight_decay": config.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    adamw = torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=config.learning_rate,
        betas=(config.beta1, config.beta2),
        fused=True,
    )
    if not muon:
        return adamw
    return MuonWithAdamW(
        torch.optim.Muon(
            muon,
            lr=config.learning_rate,
            weight_decay=config.weight_decay,
            adjust_lr_fn="match_rms_adamw",
        ),
        adamw,
    )


def token_tables(model: nn.Module) -> list[Tensor]:
    """Return the weights of the embeddings and of the output layer. Tied ones appear twice."""
    embeddings = [module.weight for module in model.modules() if isinstance(module, nn.Embedding)]
    head = getattr(model, "get_output_embeddings", lambda: None)()
    return [*embeddings, *([head.weight] if head is not None else [])]


def muon_step(gradient: Tensor) -> Tensor:
    """Return what Muon without momentum subtracts for a gradient, per unit of the learning rate."""
    weight = nn.Parameter(torch.zeros_like(gradient))
    weight.grad = gradient
    muon = torch.optim.Muon(
        [weight],
        lr=1.0,
        weight_decay=0.0,
        momentum=0.0,
        nesterov=False,
        adjust_lr_fn="match_rms_adamw",
    )
    with _Float32OnCpu():
        muon.step()  # type: ignore[no-untyped-call]
    return -weight.detach()


def learning_rate(settings: LearningRate, step: int, steps: int) -> float:
    """Return the learning rate of a step: linear warmup, then the schedule.

    * cosine: falls to the share `final_share` of the peak (Hoffmann et al. 2022).
    * wsd: stays at the peak, then falls linearly to this share over the last `decay_share` of the
      steps (Hu et al. 2024; Haegele et al. 2024).
    * constant: stays at the peak.

    Args:
        settings: the phase's settings: the config section `optimizer` or `finetune`.
        step: number of the step, from 0.
        steps: number of steps of the phase.
    """
    peak, warmup_steps = settings.learning_rate, settings.warmup_steps
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    final = settings.final_share
    if final is None:
        final = FINAL_SHARE[settings.schedule]
    if settings.schedule == "constant":
        return peak
    if settings.schedule == "wsd":
        left = min(1.0, (steps - step) / max(round(settings.decay_share * steps), 1))
        return peak * (final + (1 - final) * left)
    progress = min((step - warmup_steps) / max(steps - warmup_steps, 1), 1.0)
    return peak * (final + (1 - final) * 0.5 * (1 + math.cos(math.pi * progress)))


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
