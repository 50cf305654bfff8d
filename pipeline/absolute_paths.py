"""Absolute paths in a config, for processes that run in other folders."""

from pathlib import Path
from typing import Any, TypeVar

from data_catalog.settings import Settings
from pipeline.config import Dataset, Embed, Tokenizer

# Fields that hold a folder or a name on the Hugging Face hub.
_FOLDER_OR_NAME = {(Embed, "model"), (Tokenizer, "path"), (Dataset, "name")}

Config = TypeVar("Config", bound=Settings)


def with_absolute_paths(config: Config) -> Config:
    """Return a config whose relative paths, which start at this folder, are absolute.

    URLs and names on the Hugging Face hub are not changed.
    """
    return config.model_copy(
        update={
            key: _absolute(value, (type(config), key) in _FOLDER_OR_NAME) for key, value in config
        }
    )


def local_paths(config: Settings) -> dict[str, Path]:
    """Return the paths of a config on this machine by their key, such as `source.path`.

    The config has absolute paths.
    """
    found: dict[str, Path] = {}
    for key, value in config:
        names = (type(config), key) in _FOLDER_OR_NAME
        for number, item in enumerate(value if isinstance(value, tuple) else (value,)):
            place = f"{key}[{number}]" if isinstance(value, tuple) else key
            if isinstance(item, Settings):
                inner = local_paths(item)
                found |= {f"{place}.{below}": path for below, path in inner.items()}
            elif isinstance(item, Path) or (names and item and Path(item).is_absolute()):
                found[place] = Path(item)
    return found


def _absolute(value: Any, names_folder: bool) -> Any:
    if isinstance(value, Settings):
        return with_absolute_paths(value)
    if isinstance(value, tuple):
        return tuple(_absolute(item, names_folder) for item in value)
    if isinstance(value, Path):
        return value.absolute()
    if names_folder and value and Path(value).is_dir():
        return str(Path(value).absolute())
    return value
