"""The ghost backend: scores every sequence in a backward pass that runs anyway.

Each module that owns parameters is watched: its inputs, and the gradient at its output, are all that the product needs (`slopes.py`; ghost
clipping, Li et al. 2022; ghost dot product, Wang et al. 2024). The scores are sums over modules.
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
    head: Slopes | None = None  # of the fused head
    scale: Tensor | None = (
        None  # by which the loss was multiplied where the backward pass began; None: it did not
    )
    found: list[tuple[str, Slopes]] = field(
        default_factory=list
    )  # by the path of a parameter, times `scale`


class Ghost:
    """Scores every sequence that goes backward inside of it:

        with Ghost(engine, direction) as ghost:
            engine.backward(batch)
        scores = ghost.scores[: len(batch.inputs)]

    Loss and gradient are the same as without. Fused attention, autocast, micro-batches and recomputed activations stay; compiled layers run
    eagerly inside. Each process scores its own sequences. Where parameters are sharded, the direction is gathered one module at a time in
    the backward pass: all processes run the same modules in the same order there, as they must for the parameters themselves.

    Work: that of a forward pass without its attention. Memory: what the backward pass keeps anyway; under bfloat16 also each norm's
    output before it is rounded, a tenth more activations; and for a moment one module's output once again.

    Attributes:
        scores: `<gradient of sequence j's sum of nats, v>`, fp64, in order. Sequences that the engine adds where other processes have more
            come last, with score 0.
        shares: the sum of the scores by parameter name. A tied parameter's holds all of its uses.
    """

    scores: Float[Tensor, " sequences"]
    shares: dict[str, float]

    def __init__(self, engine: Engine, direction: Direction) -> None:
        """Find the modules that own parameters of `direction`. They are watched from the beginning of the `with` block to its end."""
        self._engine, self._direction = engine, direction
        self._names: dict[
            str, str
        ] = {}  # a parameter's name by its path; one that is tied has a path in every module that owns it
        self._owners: dict[nn.Module, dict[str, str]] = {}  # by module and attribute, the path
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
        self._blind: dict[str, str] = {}  # why it cannot be seen, by path
        self._watching = ExitStack()

    def __enter__(self) -> "Ghost":
        with ExitStack() as stack:
            for module in self._owners:
                stack.callback(module.register_forward_hook(self._tap, with_kwargs=True).remove)
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
        """Stop watching, and add up.

        Raises:
            UserError: a parameter has a gradient, but was not seen at work in the module that owns it.
        """
        self._watching.close()
        if kind is None:
            self._add_up()

    def _begin(self, _: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self._passes.append(_Pass(*inputs[0].shape))

    def _end_forward(
        self, fused: HeadSlopes | None, _: nn.Module, __: object, losses: Losses
    ) -> None:
        this = self._passes[-1]
        if fused is not None and fused.seen:
            this.head = fused.seen.pop()

        def backward_begins(scale: Tensor) -> None:
            this.scale = scale

        if losses.total.requires_grad:
            losses.total.register_hook(backward_begins)  # type: ignore[no-untyped-call]

    def _along(self, path: str) -> Tensor:
        v = self._direction.tensors[self._names[path]]
        return v.full_tensor() if isinstance(v, DTensor) else v

    def _tap(
        self, module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any], output: Any
    ) -> Tensor | None:
        """Pass `output` on through a node of the graph that sees the gradient there."""
        if isinstance(output, Tensor) and not output.requires_grad:
            return None
        this, owned = self._passes[-1], self._owners[module]
        if named or not all(isinstance(value, Tensor) for value in (*inputs, output)):
            self._blind.update(
                dict.fromkeys(
                    owned.values(), "its module takes or returns something other than tensors"
                )
            )
            return None
        first, deep = len(output), output.dim() > 2
        if first == 1 and deep:  # the same for all sequences until here, as positions are
            output = output.expand(this.sequences, *output.shape[1:])
        elif first != this.sequences * (1 if deep else this.tokens):
            self._blind.update(
                dict.fromkeys(
                    owned.values(), f"its module returns a tensor of shape {tuple(output.shape)}"
                )
            )
            return None
        device = output.device.type
        autocast = partial(
            torch.autocast,
            device,
            torch.get_autocast_dtype(device),
            torch.is_autocast_enabled(device),
        )

        def see(delta: Tensor, given: tuple[Tensor, ...]) -> None:
            along = {attribute: self._along(path) for attribute, path in owned.items()}
            slopes = module_slopes(module, along, given, delta, this.sequences, autocast())
            this.found.extend((owned[attribute], found) for attribute, found in slopes.items())

        tapped: Tensor = _Tap.apply(output, see, *(value.detach() for value in inputs))  # type: ignore[no-untyped-call]
        return tapped

    def _add_up(self) -> None:
        scores = [torch.zeros(0, dtype=torch.float64, device=self._engine.team.device)]
        sums: dict[str, float] = {}  # by path
        for this in self._passes:
            if this.scale is None:
                continue
            rows = [(path, slopes / this.scale) for path, slopes in this.found]
            if this.head is not None and self._head_path is not None:
                rows.append((self._head_path, this.head))
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
            blind = path in self._blind or path not in sums
            if blind and sums and gradient is not None and bool(local(gradient).any()):
                reason = self._blind.get(path, "its module does not use it")
                raise UserError(
                    f'mixture.backend = "ghost": The scores of {path} are not available, because '
                    f'{reason}. Use "exact" or "finite_difference".'
                )


class _Tap(torch.autograd.Function):
    """The identity, with a look at what its module was given and at the gradient.

    A node of the graph rather than a hook on a tensor: what it saves is dropped and recomputed with the layer's other activations, and it
    runs once, in whichever of the two graphs goes backward.
    """

    @staticmethod
    def forward(ctx: Any, output: Tensor, see: Any, *given: Tensor) -> Tensor:
        ctx.see = see
        ctx.save_for_backward(*given)
        return output.detach()  # not a view: the model may write to it

    @staticmethod
    def backward(ctx: Any, *deltas: Tensor) -> tuple[Tensor | None, ...]:
        given = ctx.saved_tensors  # asked for once: each time would recompute the layer
        ctx.see(deltas[0], given)
        return (deltas[0], None, *(None for _ in given))
