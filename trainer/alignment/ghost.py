"""The ghost backend, which scores every sequence in a backward pass that runs anyway.

A module's inputs and the gradient at its output determine the inner product of its parameters'
gradient with a direction (`slopes.py`; ghost clipping, Li et al. 2022; ghost dot product, Wang et
al. 2024). The backend records both for each module that owns parameters. A sequence's score is the
sum over all modules.
"""

from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from types import TracebackType
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from data_catalog.errors import UserError
from trainer.alignment import Direction
from trainer.alignment.direction import local
from trainer.alignment.slopes import Slopes, module_slopes
from trainer.model.engine import Engine
from trainer.model.head import HeadSlopes, Losses, head_slopes


@dataclass
class _Pass:
    """One micro-batch's forward and backward pass."""

    sequences: int
    tokens: int
    head: Slopes | None = None
    """Slopes of the fused head."""
    scale: Tensor | None = None
    """Factor of the loss in the backward pass, or None if there was no backward pass."""
    slopes: list[tuple[str, Slopes]] = field(default_factory=list)
    """Path of a parameter, and its slopes times `scale`."""


class Ghost:
    """A context in which every backward pass also scores its sequences.

    For example:

        with Ghost(engine, direction) as ghost:
            engine.backward(batch)
        scores = ghost.scores[: len(batch.inputs)]

    The loss and the gradient do not change. Fused attention, autocast, micro-batches and recomputed
    activations are supported. Compiled layers run eagerly in this context. Each process scores its
    own sequences. Sharded directions are gathered one module at a time in the backward pass, in the
    same order on all processes, like the parameters themselves.

    The extra work is that of a forward pass without its attention. The extra memory is one module's
    output at a time. Under bfloat16 it also includes each norm's output before rounding, which is a
    tenth more activations.

    Attributes:
        scores: `<gradient of sequence j's sum of nats, v>`, fp64, in order. Empty sequences, which
            the engine appends if other processes have more, have score 0.
        shares: sum of the scores by parameter name, over all uses of a tied parameter.
    """

    scores: Float[Tensor, " sequences"]
    shares: dict[str, float]

    def __init__(self, engine: Engine, direction: Direction) -> None:
        """Find the modules that own parameters of `direction`.

        Args:
            engine: the model.
            direction: v.
        """
        self._engine, self._direction = engine, direction
        # Parameter name by path. A tied parameter has a path in every module that owns it.
        self._names: dict[str, str] = {}
        # Path by module and attribute.
        self._owners: dict[nn.Module, dict[str, str]] = {}
        names = {
            parameter: name
            for name, parameter in engine.parameters().items()
            if name in direction.tensors
        }
        for path, parameter in engine.model.named_parameters(remove_duplicate=False):
            if parameter in names:
                prefix, _, attribute = path.rpartition(".")
                self._names[path] = names[parameter]
                self._owners.setdefault(engine.model.get_submodule(prefix), {})[attribute] = path
        head = engine.model.get_output_embeddings()  # type: ignore[no-untyped-call]
        self._head_path = self._owners[head].get("weight") if head in self._owners else None
        self._passes: list[_Pass] = []
        # Reason why a parameter cannot be scored, by path.
        self._unsupported: dict[str, str] = {}
        self._watching = ExitStack()

    def __enter__(self) -> "Ghost":
        with ExitStack() as stack:
            for module in self._owners:
                # First, because other hooks keep a router's output for the balance of experts.
                hook = module.register_forward_hook(self._tap, with_kwargs=True, prepend=True)
                stack.callback(hook.remove)
            fused = (
                stack.enter_context(head_slopes(partial(self._along, self._head_path)))
                if self._head_path
                else None
            )
            stack.callback(self._engine.loss.register_forward_pre_hook(self._begin).remove)
            stack.callback(
                self._engine.loss.register_forward_hook(partial(self._end_forward, fused)).remove
            )
            if self._engine.training.compile:
                stack.enter_context(torch.compiler.set_stance("force_eager"))
            self._watching = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Remove the hooks and compute `scores` and `shares`.

        Raises:
            UserError: A parameter has a gradient, but its scores are not available.
        """
        self._watching.close()
        if kind is None:
            self._add_up()

    def _begin(self, _: nn.Module, inputs: tuple[Any, ...]) -> None:
        self._passes.append(_Pass(*inputs[0].shape))

    def _end_forward(
        self, fused: HeadSlopes | None, _: nn.Module, __: object, losses: Losses
    ) -> None:
        current = self._passes[-1]
        if fused is not None and fused.slopes:
            current.head = fused.slopes.pop()

        def backward_begins(scale: Tensor) -> None:
            current.scale = scale

        if losses.total.requires_grad:
            losses.total.register_hook(backward_begins)  # type: ignore[no-untyped-call]

    def _along(self, path: str) -> Tensor:
        v = self._direction.tensors[self._names[path]]
        return v.full_tensor() if isinstance(v, DTensor) else v

    def _tap(
        self, module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any], output: Any
    ) -> Any:
        """Return `output` through a node of the graph that records the gradients there.

        A router returns several tensors, of which the node takes those that have a gradient.
        """
        returned = output if isinstance(output, tuple) else (output,)
        plain = all(isinstance(one, Tensor) for one in returned)
        if plain and not any(one.requires_grad for one in returned):
            return None
        current, owned = self._passes[-1], self._owners[module]
        if named or not plain or not all(isinstance(value, Tensor) for value in inputs):
            self._unsupported.update(
                dict.fromkeys(
                    owned.values(), "its module takes or returns something other than tensors"
                )
            )
            return None
        places = [place for place, one in enumerate(returned) if one.requires_grad]
        tensors = [returned[place] for place in places]
        for place, one in enumerate(tensors):
            first, deep = len(one), one.dim() > 2
            if first == 1 and deep:  # All sequences share this output, such as that of positions.
                tensors[place] = one.expand(current.sequences, *one.shape[1:])
            elif first != current.sequences * (1 if deep else current.tokens):
                self._unsupported.update(
                    dict.fromkeys(
                        owned.values(), f"its module returns a tensor of shape {tuple(one.shape)}"
                    )
                )
                return None
        device = tensors[0].device.type
        autocast = partial(
            torch.autocast,
            device,
            torch.get_autocast_dtype(device),
            torch.is_autocast_enabled(device),
        )

        def record(deltas: tuple[Tensor | None, ...], inputs: tuple[Tensor, ...]) -> None:
            along = {attribute: self._along(path) for attribute, path in owned.items()}
            at = {place: d for place, d in zip(places, deltas, strict=True) if d is not None}
            slopes = module_slopes(module, along, inputs, at, current.sequences, autocast())
            current.slopes.extend((owned[attribute], each) for attribute, each in slopes.items())

        detached = [value.detach() for value in inputs]
        tapped: tuple[Tensor, ...] = _Tap.apply(record, len(tensors), *tensors, *detached)  # type: ignore[no-untyped-call]
        if isinstance(output, Tensor):
            return tapped[0]
        whole = list(output)
        for place, one in zip(places, tapped, strict=True):
            whole[place] = one
        return tuple(whole)

    def _add_up(self) -> None:
        scores = [torch.zeros(0, dtype=torch.float64, device=self._engine.team.device)]
        sums: dict[str, float] = {}  # by path
        for each in self._passes:
            if each.scale is None:
                continue
            rows = [(path, slopes / each.scale) for path, slopes in each.slopes]
            if each.head is not None and self._head_path is not None:
                rows.append((self._head_path, each.head))
            table = torch.stack([slopes for _, slopes in rows])
            scores.append(table.sum(0))
            for (path, _), value in zip(rows, table.sum(1).tolist(), strict=True):
                sums[path] = sums.get(path, 0.0) + value
        self.scores = torch.cat(scores)
        self.shares = dict.fromkeys(self._names.values(), 0.0)
        parameters = self._engine.parameters()
        for path, name in self._names.items():
            self.shares[name] += sums.get(path, 0.0)
            gradient = parameters[name].grad
            missing = path in self._unsupported or path not in sums
            if missing and sums and gradient is not None and bool(local(gradient).any()):
                reason = self._unsupported.get(path, "its module does not use it")
                raise UserError(
                    f'mixture.backend = "ghost": The scores of {path} are not available, because '
                    f'{reason}. Use "exact" or "finite_difference".'
                )


class _Tap(torch.autograd.Function):
    """The identity, which records its module's inputs and the gradients at its outputs.

    This is a node of the graph instead of a tensor hook. Its saved inputs are therefore dropped and
    recomputed with the layer's other activations, and it runs once even if the layer is recomputed.
    """

    @staticmethod
    def forward(ctx: Any, record: Any, outputs: int, *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.record, ctx.inputs = record, len(tensors) - outputs
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*tensors[outputs:])
        # These are no views, because the model may write to them.
        return tuple(tensor.detach() for tensor in tensors[:outputs])

    @staticmethod
    def backward(ctx: Any, *deltas: Tensor | None) -> tuple[Tensor | None, ...]:
        inputs = ctx.saved_tensors  # Read once, because every access recomputes the layer.
        ctx.record(deltas, inputs)
        return (None, None, *deltas, *(None for _ in range(ctx.inputs)))
