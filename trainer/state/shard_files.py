"""The tensors of a checkpoint in files of each process, of a sharded model.

`torch.distributed.checkpoint` writes `shards/shard-00001-….safetensors` for the first process, and
so on. A file holds the part of each tensor that its process writes, and where that part lies in the
whole. Copies of the model share the work. No file is a pickle. Any number of processes can read the
files, with or without a sharded model. Each reads only its part.
"""

import warnings
from collections.abc import Callable, Collection
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.default_planner import DefaultSavePlanner
from torch.distributed.checkpoint.hf_storage import (
    HuggingFaceStorageReader,
    HuggingFaceStorageWriter,
)
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.planner import LoadPlan, LoadPlanner, WriteItem
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.futures import Future

from data_catalog.disk import writing
from data_catalog.errors import UserError
from trainer.state.tensors import (
    Named,
    make_optimizer_tensors,
    model_tensors,
    optimizer_tensors,
    shapes,
)

FetchShards = Callable[[Collection[Path]], None]
"""Brings the content of files to this machine."""

SHARDS = "shards"
_FILE_BYTES = 2**25  # size at which a file ends
_MODEL, _OPTIMIZER = "model/", "optimizer/"  # prefixes of names in the files


class _CopiesPlanner(DefaultSavePlanner):
    """Plans by the live tensors, and writes copies of their content that training cannot change."""

    def __init__(self, copies: Named) -> None:
        super().__init__()
        self._copies = copies

    def resolve_data(self, write_item: WriteItem) -> Tensor:
        """Return the copy of this process's part of a tensor."""
        return self._copies[write_item.index.fqn]


def named_state(model: nn.Module, optimizer: torch.optim.Optimizer) -> Named:
    """Return the live tensors of a model and its optimizer by their names in the files."""
    return _joined(model, optimizer_tensors(model, optimizer))


def split_state(tensors: Named) -> tuple[Named, dict[str, Named]]:
    """Return the tensors of the model, and those of the optimizer by parameter name."""
    model: Named = {}
    optimizer: dict[str, Named] = {}
    for full_name, tensor in tensors.items():
        if full_name.startswith(_MODEL):
            model[full_name.removeprefix(_MODEL)] = tensor
        else:
            name, _, key = full_name.removeprefix(_OPTIMIZER).rpartition("/")
            optimizer.setdefault(name, {})[key] = tensor
    return model, optimizer


def write_shards(
    folder: Path, tensors: Named, copies: Named, group: dist.ProcessGroup
) -> list[Path]:
    """Write this process's files and return them. All processes of `group` call this together.

    Args:
        folder: the folder to write to. It can be read only when all processes have returned.
        tensors: the live tensors. Only their shapes and shards are used.
        copies: copies in CPU memory of this process's part of each.
        group: the processes, which must be able to communicate CPU tensors.

    Raises:
        OSError: A process cannot write its files. All processes raise it.
    """
    with writing(folder):
        try:
            save(
                tensors,
                storage_writer=HuggingFaceStorageWriter(
                    str(folder), fqn_to_index_mapping=_file_numbers(copies), save_distributed=True
                ),
                planner=_CopiesPlanner(copies),
                process_group=group,
            )
        except CheckpointException as error:  # on all processes
            fault = _fault_of(error)
            raise (fault if isinstance(fault, OSError) else RuntimeError(str(error))) from error
    return list(folder.glob(f"shard-{dist.get_rank(group) + 1:05d}-*.safetensors"))


def _fault_of(error: CheckpointException) -> BaseException:
    """Return the first error of a process."""
    return next(iter(error.failures.values()))[0]


def _file_numbers(copies: Named) -> dict[str, int]:
    """Return the number of the file of each tensor, from 1.

    torch copies a whole file in memory to write it, twice. So a file ends when it is large enough.
    Single numbers, which every process reads, have a file of their own.
    """
    numbers = {name: 1 for name, copy in copies.items() if not copy.ndim}
    number, size = 2, 0
    for name, copy in copies.items():
        if copy.ndim:
            if size >= _FILE_BYTES:
                number, size = number + 1, 0
            numbers[name] = number
            size += copy.nbytes
    return numbers


def shard_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the model's tensors by name."""
    model, _ = split_state(_saved(folder))
    return shapes(model)


class _Reader(HuggingFaceStorageReader):
    """Reads the files of this process's part, which are fetched first."""

    def __init__(self, folder: Path, fetch: FetchShards | None) -> None:
        super().__init__(str(folder))
        self._fetch = fetch

    def read_data(self, plan: LoadPlan, planner: LoadPlanner) -> Future[None]:
        """Read the tensors of a plan."""
        if self._fetch is not None:
            places = (self.storage_data[item.storage_index] for item in plan.items)
            self._fetch({Path(place.relative_path) for place in places})
        return super().read_data(plan, planner)


def load_shards(
    folder: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    fetch: FetchShards | None = None,
) -> None:
    """Read this process's part of every tensor into `model` and `optimizer`.

    Args:
        folder: the folder of the files.
        model: the plain model.
        optimizer: its optimizer.
        fetch: called with the files that this process reads, before it reads them. All files have
            their header already.

    Raises:
        UserError: `fetch` raised it.
    """
    _, saved = split_state(_saved(folder))
    saved_shapes = {name: shapes(tensors) for name, tensors in saved.items()}
    state = _joined(model, make_optimizer_tensors(model, optimizer, saved_shapes))
    with warnings.catch_warnings():
        # Every process plans its own reads, without communication. torch warns of that.
        warnings.simplefilter("ignore", UserWarning)
        try:
            load(state, storage_reader=_Reader(folder, fetch), no_dist=True)
        except CheckpointException as error:
            fault = _fault_of(error)
            raise (fault if isinstance(fault, UserError) else error) from error


def _joined(model: nn.Module, optimizer: dict[str, Named]) -> Named:
    tensors = {f"{_MODEL}{name}": tensor for name, tensor in model_tensors(model).items()}
    for name, state in optimizer.items():
        tensors |= {f"{_OPTIMIZER}{name}/{key}": tensor for key, tensor in state.items()}
    return tensors


def _saved(folder: Path) -> Named:
    """Return the saved tensors without content, on the meta device."""
    metadata = HuggingFaceStorageReader(str(folder)).read_metadata().state_dict_metadata
    return {
        name: torch.empty(one.size, dtype=one.properties.dtype, device="meta")
        for name, one in metadata.items()
        if isinstance(one, TensorStorageMetadata)
    }
