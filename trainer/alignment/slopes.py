"""Slopes of each sequence's loss along a direction of one module's parameters.

The slope is `<d loss_j / d parameter, V>`. It needs only the module's inputs and the gradient at
its output. At a linear layer the gradient of sequence j is `sum_t delta_t a_t^T`, with a_t the
input and delta_t the gradient at the output. The slope is then `sum_t <delta_t, V a_t>`, which is
one product of the size of the forward pass. No gradient of a single sequence is formed. At an
embedding V a_t is a row of V. At any other module it is the tangent of the module's forward pass
along V. Experts run one by one for it, because their grouped products have no tangent in torch.
"""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from itertools import product

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call, jvp
from torch.nn import functional
from transformers.pytorch_utils import Conv1D

Slopes = Float[Tensor, " sequences"]


def module_slopes(
    module: nn.Module,
    along: Mapping[str, Tensor],
    inputs: tuple[Tensor, ...],
    deltas: Mapping[int, Float[Tensor, "..."]],
    sequences: int,
    autocast: AbstractContextManager[None],
) -> dict[str, Slopes]:
    """Return the slopes of each parameter in `along`, fp64.

    Args:
        module: the module.
        along: direction by attribute of the module.
        inputs: positional inputs of the module. Their first dimension can be 1 if all sequences
            share them, such as positions.
        deltas: gradient at each output that has one, by its place among the outputs, in the order
            of the sequences. Products run in its dtype, which autocast has chosen.
        sequences: number of sequences.
        autocast: autocast context of the module.
    """
    sums = {name: torch.zeros(sequences, dtype=torch.float64) for name in along}
    for (name, v), (place, delta) in product(along.items(), deltas.items()):
        if type(module).forward in (nn.Linear.forward, Conv1D.forward):
            slopes = _linear(module, name, v.to(delta.dtype), inputs[0].to(delta.dtype), delta)
        elif isinstance(module, nn.Embedding) and type(module).forward is nn.Embedding.forward:
            slopes = _embedding(module, v, inputs[0], delta)
        else:
            with autocast:
                tangent = _tangent(module, name, v, inputs, place)
            slopes = torch.linalg.vecdot(delta, tangent.to(delta.dtype))
        sums[name] = sums[name].to(slopes.device) + slopes.reshape(sequences, -1).sum(
            1, dtype=torch.float64
        )
    return sums


def _linear(module: nn.Module, name: str, v: Tensor, given: Tensor, delta: Tensor) -> Tensor:
    if name == "bias":
        return delta @ v
    if isinstance(module, Conv1D):
        v = v.T
    out, into = v.shape
    if out > into:  # This order has the smaller intermediate result.
        return torch.linalg.vecdot(delta @ v, given)
    return torch.linalg.vecdot(delta, given @ v.T)


def _embedding(module: nn.Embedding, v: Tensor, tokens: Tensor, delta: Tensor) -> Tensor:
    slopes = torch.linalg.vecdot(delta, functional.embedding(tokens, v).to(delta.dtype))
    if module.padding_idx is None:
        return slopes
    return slopes.masked_fill(tokens == module.padding_idx, 0.0)  # The padding has no gradient.


def _tangent(
    module: nn.Module, name: str, v: Tensor, inputs: tuple[Tensor, ...], place: int
) -> Tensor:
    value = module.get_parameter(name).detach()

    def run(moved: Tensor) -> Tensor:
        output = functional_call(module, {name: moved}, inputs)
        found: Tensor = output[place] if isinstance(output, tuple) else output
        return found

    with _one_by_one(module):
        tangent: Tensor = jvp(run, (value,), (v.to(value.dtype),))[1]
    return tangent


@contextmanager
def _one_by_one(module: nn.Module) -> Iterator[None]:
    """Run the experts of a module of transformers one by one in this context."""
    config = getattr(module, "config", None)
    chosen = getattr(config, "_experts_implementation_internal", None)
    if chosen is None or not hasattr(module, "num_experts"):
        yield
        return
    config._experts_implementation_internal = "eager"  # type: ignore[union-attr]
    try:
        yield
    finally:
        config._experts_implementation_internal = chosen  # type: ignore[union-attr]
