"""The tensors of a checkpoint in two files, of a model that is not sharded.

`model.safetensors` holds the model and `optimizer.pt` the optimizer. The first process writes them.
Every process reads only its part, so that a sharded run can resume from them. Earlier versions of
clustermix wrote the same files for sharded models too.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from data_catalog.format.damage import reading
from trainer.state.tensors import (
    Named,
    make_optimizer_tensors,
    model_tensors,
    own_part,
    own_place,
)

MODEL, OPTIMIZER = "model.safetensors", "optimizer.pt"


def write_whole(folder: Path, model: Named, optimizer: Mapping[str, Named]) -> None:
    """Write the copied tensors of a model and its optimizer."""
    save_file(model, folder / MODEL)
    # Given an open file instead of a path, torch.save's error has the OSError as its context.
    with (folder / OPTIMIZER).open("wb") as file:
        torch.save({"state": dict(optimizer)}, file)


def check_whole(folder: Path, remedy: str) -> None:
    """Read both files.

    Raises:
        DamagedFileError: A file is missing or cannot be read.
    """
    with reading(folder / MODEL, remedy):
        load_file(folder / MODEL)
    _read_optimizer(folder, remedy)


def whole_shapes(folder: Path, remedy: str) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the model's tensors by name.

    Raises:
        DamagedFileError: The file is missing or cannot be read.
    """
    with reading(folder / MODEL, remedy), safe_open(folder / MODEL, framework="pt") as file:
        return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118


def load_whole(
    folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, remedy: str
) -> None:
    """Read this process's part of every tensor into `model` and `optimizer`.

    Raises:
        DamagedFileError: A file is missing or cannot be read.
    """
    saved = _read_optimizer(folder, remedy)
    with reading(folder / MODEL, remedy), safe_open(folder / MODEL, framework="pt") as file:
        for name, tensor in model_tensors(model).items():
            # A slice of a tensor without dimensions cannot be read.
            content = file.get_slice(name)[own_place(tensor)] if tensor.ndim else None
            own_part(tensor).copy_(file.get_tensor(name) if content is None else content)
    shapes = {
        name: {key: tuple(tensor.shape) for key, tensor in tensors.items()}
        for name, tensors in saved.items()
    }
    for name, tensors in make_optimizer_tensors(model, optimizer, shapes).items():
        for key, tensor in tensors.items():
            own_part(tensor).copy_(saved[name][key][own_place(tensor)])


def _read_optimizer(folder: Path, remedy: str) -> dict[str, dict[str, Tensor]]:
    """Return the optimizer's tensors by parameter name. Their content is read when it is used."""
    with reading(folder / OPTIMIZER, remedy):
        saved = torch.load(folder / OPTIMIZER, map_location="cpu", mmap=True, weights_only=True)
    state: dict[str, dict[str, Tensor]] = saved.get("state", {})
    return state
