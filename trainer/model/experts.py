"""Mixtures of experts: the balance of their loads, and the share of them that a token uses.

A router that is trained on the loss alone sends most tokens to a few experts. A model is therefore
balanced in the way that its own code provides for: by an auxiliary loss, which is a part of the
training loss, or by biases that are added to the router's scores and change after each step.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from transformers import PreTrainedModel

from data_catalog.errors import UserError
from trainer.distributed import Team

BIAS_STEP = 1e-3  # change of an expert's bias per step (DeepSeek-V3, section 4.2)
_BIASES = ("e_score_correction_bias", "expert_bias")


def expert_parameters(model: nn.Module) -> Iterator[tuple[nn.Module, nn.Parameter]]:
    """Yield each parameter that holds the matrices of all experts of a layer, and its module."""
    for module in model.modules():
        count = getattr(module, "num_experts", None)
        for parameter in module.parameters(recurse=False) if isinstance(count, int) else ():
            if parameter.ndim == 3 and len(parameter) == count:
                yield module, parameter


def unused_parameters(model: PreTrainedModel) -> float:
    """Return the number of parameters of experts that a token does not use."""
    return sum(
        p.numel() * (1.0 - _experts_per_token(model) / len(p)) for _, p in expert_parameters(model)
    )


def _experts_per_token(model: PreTrainedModel) -> int:
    own = getattr(model, "num_experts_per_tok", None)
    return int(own or model.config.get_text_config().num_experts_per_tok)


def check_balance(key: str, path: str, model: PreTrainedModel) -> None:
    """Check that the experts of a model can be balanced. The model may be on the meta device.

    Args:
        key: key of the run's config that names the model.
        path: path or name of the model.
        model: the model.

    Raises:
        UserError: The model has experts, and neither an auxiliary loss nor biases.
    """
    if any(expert_parameters(model)) and _coefficient(model) is None and not _biases(model):
        raise UserError(
            f"{key} {path}: transformers has no loss that balances the experts of a "
            f"{type(model).__name__}. Use a dense model, or one with such a loss or with biases, "
            "such as OLMoE, Mixtral, Qwen3-MoE or DeepSeek-V3."
        )


def has_balance_loss(model: PreTrainedModel) -> bool:
    """Return whether the model's own code has an auxiliary loss, and its coefficient is not 0."""
    return bool(_coefficient(model)) and any(expert_parameters(model))


def _coefficient(model: PreTrainedModel) -> float | None:
    """Return the coefficient of the auxiliary loss, or None if there is no such loss."""
    if not hasattr(sys.modules[type(model).__module__], "load_balancing_loss_func"):
        return None
    own = (getattr(model, name, None) for name in ("router_aux_loss_coef", "aux_loss_coef"))
    return next((float(coefficient) for coefficient in own if coefficient is not None), None)


def balance_loss(
    model: PreTrainedModel,
    router_logits: tuple[Tensor, ...],
    kept: Bool[Tensor, "sequences tokens"],
) -> Float[Tensor, ""]:
    """Return the model's own auxiliary loss of a micro-batch, times its coefficient.

    Args:
        model: a model that has such a loss.
        router_logits: the logits of every router.
        kept: the positions that count. Padding does not. If none is kept, all count, so that the
            result is finite.
    """
    function = sys.modules[type(model).__module__].load_balancing_loss_func
    loss: Tensor = function(
        router_logits, model.num_experts, model.num_experts_per_tok, kept | ~kept.any()
    )
    return (_coefficient(model) or 0.0) * loss


class ExpertBiases:
    """The biases by which the routers of a model are balanced without a loss.

    After each step, the bias of an expert with less than the mean load is raised by `BIAS_STEP`,
    and that of one with more is lowered, both less the mean change (Wang et al. 2024; torchtitan).
    """

    def __init__(self, model: nn.Module) -> None:
        """Find the biases, and the experts whose loads count for them."""
        found = _biases(model)
        self._biases = [bias for _, bias in found]
        self._loads: dict[int, Tensor] = {}  # by place in `_biases`
        self._kept: Tensor | None = None
        for place, (experts, _) in enumerate(found):
            experts.register_forward_pre_hook(partial(self._count, place))

    def _count(self, place: int, _: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        """Add the loads of a forward pass. Recomputed activations do not count again."""
        if self._kept is None:
            return
        chosen = inputs[1]  # `(positions, experts per token)`
        kept = self._kept.reshape(-1, 1).expand_as(chosen)
        loads = self._loads.setdefault(place, torch.zeros_like(self._biases[place]))
        loads.scatter_add_(0, chosen.reshape(-1), kept.reshape(-1).to(loads.dtype))

    @contextmanager
    def counting(self, kept: Bool[Tensor, "sequences tokens"]) -> Iterator[None]:
        """Return a context of a forward pass whose loads are counted, except those of padding."""
        self._kept = kept
        try:
            yield
        finally:
            self._kept = None

    def clear(self) -> None:
        """Forget all loads."""
        self._loads.clear()

    @torch.no_grad()
    def update(self, team: Team) -> None:
        """Move the biases after a step. All processes call this together."""
        for place, bias in enumerate(self._biases):
            loads = team.sum(self._loads.get(place, torch.zeros_like(bias)))
            change = BIAS_STEP * torch.sign(loads.mean() - loads)
            bias.add_(change - change.mean())
        self.clear()


def _biases(model: nn.Module) -> list[tuple[nn.Module, Tensor]]:
    """Return each module of experts whose router has a bias, and the bias."""
    named = {name: b for name, b in model.named_buffers() if name.rpartition(".")[2] in _BIASES}
    modules = dict.fromkeys(module for module, _ in expert_parameters(model))
    paths = {module: path for path, module in model.named_modules() if module in modules}
    return [
        (module, bias)
        for module in modules
        for name, bias in named.items()
        if name.startswith(paths[module].rpartition(".")[0] + ".")
    ]
