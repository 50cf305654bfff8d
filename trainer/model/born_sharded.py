"""Models that are born sharded: no process ever holds more than one whole parameter.

While `Shards.recording` is active, every parameter that a module registers is one on the meta
device, and this process keeps its rows of the content. An operation that initialises a parameter
runs on a whole tensor on the CPU, of which the rows are kept when the next parameter is
initialised. Every process draws all random numbers, so that the weights are bit for bit those of a
model that is built whole. Buffers are not touched.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter, tree_map

# Operations that replace the whole content of their first argument without reading it.
_OVERWRITING = {"normal_", "uniform_", "zero_", "fill_", "copy_"}
# Operations that return a tensor with the same storage, which is recognised as the parameter.
_ALIASING = {"detach", "alias"}


class NotShardableError(Exception):
    """The model cannot be built in shards, and must be built whole."""


class Shards:
    """This process's rows of the parameters of a model that is being built.

    Parameters are divided by rows into `count` parts of equal size, as FSDP2 does. The last parts
    may be smaller or empty.
    """

    def __init__(self, index: int, count: int) -> None:
        """Keep part `index` of `count`."""
        self._index, self._count = index, count
        self._rows: dict[int, Tensor] = {}  # by storage
        # An address identifies a storage only as long as the storage exists.
        self._parameters: list[nn.Parameter] = []

    def part(self, length: int) -> slice:
        """Return the rows of this process, of a tensor with `length` rows."""
        size = -(-length // self._count)
        first = min(self._index * size, length)
        return slice(first, min(first + size, length))

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Keep only shards of the parameters that modules register in this context.

        Raises:
            NotShardableError: The initialisation needs more than one whole parameter at a time.
        """
        register, adopted = nn.Module.register_parameter, self._adopted

        def register_shard(self: nn.Module, name: str, param: nn.Parameter | None) -> None:
            register(self, name, param if param is None else adopted(param))

        nn.Module.register_parameter = register_shard  # type: ignore[method-assign]
        try:
            with _Initialising(self) as mode:
                yield
            mode.keep_whole()
        except NotImplementedError as error:  # of an operation on the meta device
            raise NotShardableError(str(error)) from error
        finally:
            nn.Module.register_parameter = register  # type: ignore[method-assign]

    def has(self, value: object) -> bool:
        """Return whether `value` is a parameter of which rows are kept, or an alias of one."""
        return isinstance(value, Tensor) and value.is_meta and _storage(value) in self._rows

    def keep(self, parameter: Tensor, rows: Tensor) -> None:
        """Keep a copy of this process's rows of `parameter`, in its dtype."""
        key = _storage(parameter)
        if key not in self._rows:
            self._rows[key] = torch.empty_like(rows, dtype=parameter.dtype, device="cpu")
        self._rows[key].copy_(rows)

    def release(self, model: nn.Module) -> dict[str, Tensor]:
        """Return the rows of every parameter by name, tied ones once, and keep none.

        Raises:
            NotShardableError: A parameter was not registered while recording.
        """
        parameters = dict(model.named_parameters())
        if other := [name for name, parameter in parameters.items() if not self.has(parameter)]:
            raise NotShardableError(f"{other[0]} is not registered as a parameter")
        rows = {name: self._rows[_storage(p)] for name, p in parameters.items()}
        self._rows, self._parameters = {}, []
        return rows

    def _adopted(self, parameter: nn.Parameter) -> nn.Parameter:
        """Return the parameter on the meta device that replaces `parameter`."""
        if self.has(parameter):  # It is shared by several modules.
            return parameter
        if parameter.is_meta or not parameter.ndim:
            raise NotShardableError("a parameter has no content or no rows")
        born = nn.Parameter(torch.empty_like(parameter, device="meta"), parameter.requires_grad)
        born.__dict__.update(parameter.__dict__)
        self._parameters.append(born)
        self.keep(born, parameter.detach()[self.part(len(parameter))])
        return born


def fill(module: nn.Module, rows: Mapping[str, Tensor], model: nn.Module) -> None:
    """Fill the parameters of `model`, a part of `module`, after FSDP2 has sharded `module`.

    Args:
        module: the sharded module. Its parameters are on the meta device. They move to the device
            of their mesh.
        rows: `Shards.release` of the model before it was sharded. On the CPU, they become the
            parameters.
        model: the model.
    """
    names: dict[Tensor, str] = {p: name for name, p in model.named_parameters()}

    def filled(tensor: Tensor) -> Tensor:
        if not isinstance(tensor, DTensor):
            return tensor
        return DTensor.from_local(
            rows[names[tensor]].to(tensor.device_mesh.device_type),
            tensor.device_mesh,
            tensor.placements,
            run_check=False,
            shape=tensor.shape,
            stride=tensor.stride(),
        )

    module._apply(filled)  # type: ignore[no-untyped-call]


class _Initialising(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Runs operations on parameters of which shards are kept on a whole tensor on the CPU.

    The whole tensor exists until another parameter is touched.
    """

    def __init__(self, shards: Shards) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._shards = shards
        self._whole: dict[int, tuple[Tensor, Tensor]] = {}  # meta and CPU, by storage

    def __torch_dispatch__(
        self, func: Any, types: Sequence[Any], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        name = func._schema.name.removeprefix("aten::")
        touched: list[Tensor] = [
            value for value in tree_iter((args, kwargs)) if self._shards.has(value)
        ]
        if not touched or name in _ALIASING:
            return func(*args, **kwargs)
        target: Tensor | None = args[0] if args and self._shards.has(args[0]) else None
        stored = {_storage(parameter) for parameter in touched}
        self._keep(entry for key, entry in self._whole.items() if key not in stored)
        self._whole = {key: entry for key, entry in self._whole.items() if key in stored}
        for parameter in touched:
            if _storage(parameter) not in self._whole:
                if parameter is not target or name not in _OVERWRITING:
                    raise NotShardableError("its initialisation reads a parameter after another")
                self._whole[_storage(parameter)] = (
                    parameter,
                    torch.empty_like(parameter, device="cpu"),
                )

        def real(value: Any) -> Any:
            return self._whole[_storage(value)][1] if self._shards.has(value) else value

        result = func(*tree_map(real, args), **tree_map(real, kwargs))
        return target if target is not None and result is real(target) else result

    def keep_whole(self) -> None:
        """Keep the rows of the last parameter."""
        self._keep(self._whole.values())
        self._whole = {}

    def _keep(self, entries: Any) -> None:
        for parameter, whole in entries:
            self._shards.keep(parameter, whole[self._shards.part(len(whole))])


def _storage(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)
