"""Reading of this process's rows of the weights of a pretrained model."""

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    GenerationConfig,
    PreTrainedModel,
    initialization,
)
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import WeightConverter

from trainer.model.born_sharded import NotShardableError, Shards

_WEIGHTS, _INDEX = "model.safetensors", "model.safetensors.index.json"


def read_shards(path: str, options: Mapping[str, Any], shards: Shards) -> PreTrainedModel:
    """Return the pretrained model in the folder `path`, of which only shards are read.

    Call this while `shards` are recorded.

    Args:
        path: a folder with safetensors files.
        options: the options of `AutoModelForCausalLM.from_config`.
        shards: keep the rows of this process.

    Raises:
        NotShardableError: There is no such folder, or its tensors are not those of the model.
        OSError: A file cannot be read.
        ValueError: The folder has no config of a causal language model.
    """
    folder = Path(path)
    files = _weight_files(folder)
    config = AutoConfig.from_pretrained(path, trust_remote_code=False)
    if getattr(config, "quantization_config", None):
        raise NotShardableError("its weights are quantized")
    model: PreTrainedModel
    with initialization.no_init_weights():
        model = AutoModelForCausalLM.from_config(config, **options)  # type: ignore[no-untyped-call]
    model.tie_weights()
    if any(isinstance(one, WeightConverter) for one in get_model_conversion_mapping(model)):
        raise NotShardableError("transformers converts its weights")
    _read(model, files, shards)
    with suppress(OSError):  # It is optional.
        model.generation_config = GenerationConfig.from_pretrained(path)
    return model


def _weight_files(folder: Path) -> list[Path]:
    if (folder / _WEIGHTS).is_file():
        return [folder / _WEIGHTS]
    try:
        index = json.loads((folder / _INDEX).read_bytes())["weight_map"]
        return [folder / name for name in sorted(set(index.values()))]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise NotShardableError("it is no folder with safetensors files") from error


def _read(model: nn.Module, files: list[Path], shards: Shards) -> None:
    parameters = dict(model.named_parameters(remove_duplicate=False))
    buffers = {name: t for name, t in model.state_dict().items() if name not in parameters}
    missing = set(parameters.values())
    for name, tensor in _tensors(files):
        shape = tuple(tensor.get_shape())
        if (parameter := parameters.get(name)) in missing and shape == tuple(parameter.shape):
            shards.keep(parameter, tensor[shards.part(len(parameter))])
            missing.remove(parameter)
        elif name in buffers and shape == tuple(buffers[name].shape):
            buffers[name].copy_(tensor[:])
        else:
            raise NotShardableError(f"{name} is not a tensor of the model, or has another shape")
    if missing:
        raise NotShardableError("a tensor of the model is not in its files")


def _tensors(files: list[Path]) -> Iterator[tuple[str, Any]]:
    for path in files:
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 (it is no mapping)
                yield name, file.get_slice(name)
