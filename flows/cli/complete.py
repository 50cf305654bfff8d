"""Shell completion: names from folders and `catalog.json` files.

No catalog is opened, and no error ever reaches the shell.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import typer

if TYPE_CHECKING:
    from pydantic import BaseModel

COMMON_DISTRIBUTIONS = ("natural", "uniform")  # present in every catalog


def catalogs(incomplete: str) -> list[str]:
    """Return folders that contain a catalog."""
    return _folders_with("catalog.json", incomplete)


def runs(incomplete: str) -> list[str]:
    """Return folders that contain a run."""
    return _folders_with("config.json", incomplete)


def catalogs_and_runs(incomplete: str) -> list[str]:
    """Return folders that contain a catalog or a run."""
    return catalogs(incomplete) + runs(incomplete)


def _folders_with(name: str, incomplete: str) -> list[str]:
    """Return folders with a file `name`, up to two levels down, that start with `incomplete`."""
    base = Path(incomplete) if incomplete.endswith("/") else Path(incomplete).parent
    try:
        folders = {
            str(path.parent) for depth in ("*", "*/*") for path in base.glob(f"{depth}/{name}")
        }
    except OSError:
        return []
    return sorted(path for path in folders if path.startswith(incomplete.removeprefix("./")))


def distributions(ctx: typer.Context) -> list[str]:
    """Return the distributions of the catalog on the command line."""
    return [*_catalog(ctx).get("targets", []), *COMMON_DISTRIBUTIONS]


def targets(ctx: typer.Context) -> list[str]:
    """Return the targets of the catalog of the run on the command line."""
    try:
        path = _first_argument(ctx, "run") / "config.json"
        settings = json.loads(path.read_text(encoding="utf-8"))["config"]
        return list(_read_manifest(Path(settings["catalog"]))["targets"])
    except (OSError, ValueError, LookupError, TypeError):
        return []


def levels(ctx: typer.Context) -> list[str]:
    """Return the levels of the catalog on the command line."""
    return [str(level) for level in _catalog(ctx).get("granularities", [])]


def _catalog(ctx: typer.Context) -> dict[str, Any]:
    try:
        return _read_manifest(_first_argument(ctx, "catalog"))
    except (OSError, ValueError, LookupError, TypeError):
        return {}


def _first_argument(ctx: typer.Context, argument: str) -> Path:
    """Return the first argument of the command.

    For a line that ends with an option without its value, Typer only provides the plain words.
    """
    return Path(ctx.params[argument] or ctx.args[0])


def _read_manifest(catalog: Path) -> dict[str, Any]:
    return dict(json.loads((catalog / "catalog.json").read_text(encoding="utf-8")))


def presets() -> list[str]:
    """Return the presets of quality rules."""
    from pipeline.config import Quality

    return list(get_args(Quality.model_fields["preset"].annotation))


def build_settings(incomplete: str) -> list[str]:
    """Return the keys of a build config as `key=`, and `key=value` for keys with few values."""
    from pipeline.config import Build

    return [setting for setting in _settings(Build) if setting.startswith(incomplete)]


def train_settings(incomplete: str) -> list[str]:
    """Return the keys of a training config as `key=`, and `key=value` for keys with few values."""
    from trainer.config import Train

    return [setting for setting in _settings(Train) if setting.startswith(incomplete)]


def _settings(model: "type[BaseModel]", prefix: str = "") -> Iterator[str]:
    from pydantic import BaseModel

    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _settings(field.annotation, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}="
            yield from (
                f"{prefix}{name}={value}"
                for value in get_args(field.annotation)
                if isinstance(value, str)
            )
