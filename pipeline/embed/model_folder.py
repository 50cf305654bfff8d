"""Files of an encoder's folder: its weights, its configs, and the code that they ask for.

A model comes from strangers. Its configs can name Python classes and its weights can be pickles,
and loading either runs code. `check_model_code` refuses both before anything is loaded.
"""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from data_catalog.errors import UserError, first_line
from data_catalog.format.manifest import sha256_file

WEIGHTS_FILE = "model.safetensors"
WEIGHTS_INDEX = "model.safetensors.index.json"  # of weights in several files
_PICKLES = ("pytorch_model*.bin", "*.pt", "*.pth", "*.pkl", "*.ckpt")
_MODULES_FILE = "modules.json"
_OWN_PACKAGE, _ACTIVATIONS = "sentence_transformers.", "torch.nn."
_LARGEST_CONFIG = 2**20  # bytes; larger JSON files hold vocabularies and lists of tensors


def check_model_code(model: str, folder: Path) -> None:
    """Check that loading the model in `folder` runs no code that comes with it.

    A class outside sentence-transformers that a config names would have to be imported. A model
    whose config has `auto_map` was made for code of its own: without it, transformers would run
    the weights in another architecture.

    Args:
        model: Name of the model, for the error.
        folder: Folder of its files.

    Raises:
        UserError: A config names a class of another package, a module's weights are pickled, or
            a config is not JSON.
    """
    for file in sorted((*folder.glob("*.json"), *folder.glob("*/*.json"))):
        if file.stat().st_size > _LARGEST_CONFIG:
            continue
        content = read_model_json(file)
        for name in _foreign_classes(content, file.name == _MODULES_FILE):
            raise UserError(
                f"embed.model {model}: {file} names {name}, which is not part of "
                "sentence-transformers. Code that comes with a model never runs. "
                "Choose another model."
            )
    for place in (folder, *(folder / path for path in _module_paths(folder))):
        pickles = sorted(file.name for pattern in _PICKLES for file in place.glob(pattern))
        safe = (place / WEIGHTS_FILE).is_file() or (place / WEIGHTS_INDEX).is_file()
        if pickles and not safe:
            raise UserError(
                f"embed.model {model}: the weights in {place} are pickled ({pickles[0]}), and a "
                f"pickle can run code. Expected {WEIGHTS_FILE}. Save the model as safetensors."
            )


def weights_checksum(model: str, folder: Path) -> str:
    """Return the SHA-256 of the weights.

    For weights in several files it is that of the lines that `sha256sum` prints for them, as in
    `sha256sum model-*.safetensors | sha256sum`.

    Raises:
        UserError: A file of the weights is missing or lies outside the folder.
    """
    whole, index = folder / WEIGHTS_FILE, folder / WEIGHTS_INDEX
    if whole.is_file():
        return sha256_file(whole)
    if not index.is_file():
        raise UserError(
            f"embed.model {model}: {folder} has no {WEIGHTS_FILE}. "
            "Give a sentence-transformers model saved as safetensors."
        )
    content = read_model_json(index)
    table = content.get("weight_map") if isinstance(content, dict) else None
    names = sorted(set(table.values())) if isinstance(table, dict) else []
    inside = all(isinstance(name, str) and PurePosixPath(name).name == name for name in names)
    if not names or not inside:
        raise UserError(
            f"embed.model {model}: {index} lists no files of this folder. "
            "Restore the model's files."
        )
    digest = hashlib.sha256()
    for name in names:
        if not (folder / name).is_file():
            raise UserError(
                f"embed.model {model}: {folder} lacks {name}, which {WEIGHTS_INDEX} lists. "
                "Restore the model's files."
            )
        digest.update(f"{sha256_file(folder / name)}  {name}\n".encode())
    return digest.hexdigest()


def model_config(model: str, folder: Path) -> Any:
    """Return the config of the model's text part, as transformers reads it.

    Raises:
        UserError: transformers does not know such a model.
    """
    from transformers import AutoConfig  # noqa: PLC0415

    try:
        return AutoConfig.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        ).get_text_config()
    except Exception as error:  # a damaged config raises errors of many kinds
        raise UserError(
            f"embed.model {model}: {folder} has no config of a transformer that this version of "
            f"transformers knows ({first_line(error)}). Choose another model."
        ) from error


def embedding_dimension(model: str, folder: Path) -> int:
    """Return the length of the model's embeddings, from its configs alone.

    Raises:
        UserError: The configs state no length.
    """
    dimension = getattr(model_config(model, folder), "hidden_size", 0)
    for path in _module_paths(folder):
        settings = read_model_json(folder / path / "config.json") if path else {}
        width = settings.get("embedding_dimension", settings.get("word_embedding_dimension"))
        modes = settings.get("pooling_mode", "mean")
        if "pooling_mode" not in settings:
            legacy = [bool(on) for key, on in settings.items() if key.startswith("pooling_mode_")]
            modes = ["mean"] * max(sum(legacy), 1)
        several = 1 if isinstance(modes, str) else len(modes)
        dimension = settings.get("out_features") or (width * several if width else dimension)
    if not isinstance(dimension, int) or dimension < 1:
        raise UserError(
            f"embed.model {model}: the configs in {folder} do not state the length of an "
            "embedding. Restore the model's files."
        )
    return dimension


def read_model_json(file: Path) -> Any:
    """Return the content of a JSON file of the model, or {} if there is none.

    Raises:
        UserError: The file is not JSON.
    """
    try:
        return json.loads(file.read_text(encoding="utf-8-sig")) if file.is_file() else {}
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file}: not JSON ({error}). Restore the model's files.") from error


def _module_paths(folder: Path) -> list[str]:
    """Return the folders of the model's modules, relative to its own, "" for the model itself."""
    listed = read_model_json(folder / _MODULES_FILE) or []
    paths = [module.get("path") for module in listed if isinstance(module, dict)]
    inside = [
        path
        for path in paths
        if isinstance(path, str) and not {"..", "/"} & set(PurePosixPath(path).parts)
    ]
    if not isinstance(listed, list) or len(inside) != len(listed):
        raise UserError(
            f"{folder / _MODULES_FILE}: expected a list of modules with paths in this folder. "
            "Restore the model's files."
        )
    return inside


def _foreign_classes(content: Any, lists_modules: bool) -> Iterator[str]:
    """Yield the classes that a config asks to import from elsewhere.

    Args:
        content: The config.
        lists_modules: Whether it is the list of the model's modules.
    """
    if isinstance(content, list):
        for entry in content:
            yield from _foreign_classes(entry, lists_modules)
        return
    if not isinstance(content, dict):
        return
    for key, value in content.items():
        match key:
            case "auto_map":
                yield from sorted(set(_strings(value))) or [str(value)]
            case "type" if lists_modules:
                yield from (name for name in [str(value)] if not name.startswith(_OWN_PACKAGE))
            case "types":  # of a Router
                yield from (
                    name
                    for name in _strings(value)
                    if "." in name and not name.startswith(_OWN_PACKAGE)
                )
            case "activation_function" if isinstance(value, str) and "." in value:
                yield from (name for name in [value] if not name.startswith(_ACTIVATIONS))
            case _:
                yield from _foreign_classes(value, lists_modules=False)


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for entry in value.values() if isinstance(value, dict) else value:
            yield from _strings(entry)
