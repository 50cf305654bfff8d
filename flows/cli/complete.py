"""What the shell offers after Tab: names that a folder or its catalog.json has. Nothing is opened, and nothing is ever an error."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import typer

if TYPE_CHECKING:
    from pydantic import BaseModel

MIXTURES = ("natural", "uniform")  # distributions that every catalog has


def catalogs(incomplete: str) -> list[str]:
    """Folders with a catalog."""
    return _holding("catalog.json", incomplete)


def runs(incomplete: str) -> list[str]:
    """Folders with a run."""
    return _holding("config.json", incomplete)


def catalogs_and_runs(incomplete: str) -> list[str]:
    """What `report` takes: catalogs and runs."""
    return catalogs(incomplete) + runs(incomplete)


def _holding(name: str, incomplete: str) -> list[str]:
    """Folders with a file `name`, here or one or two levels down, whose path begins with `incomplete`."""
    base = Path(incomplete) if incomplete.endswith("/") else Path(incomplete).parent
    try:
        found = {
            str(path.parent) for depth in ("*", "*/*") for path in base.glob(f"{depth}/{name}")
        }
    except OSError:
        return []
    return sorted(path for path in found if path.startswith(incomplete.removeprefix("./")))


def distributions(ctx: typer.Context) -> list[str]:
    """Targets of the catalog that was named before, natural and uniform."""
    return [*_catalog(ctx).get("targets", []), *MIXTURES]


def targets(ctx: typer.Context) -> list[str]:
    """Targets of the catalog of the run that was named before."""
    try:
        settings = json.loads((_named(ctx, "run") / "config.json").read_text(encoding="utf-8"))[
            "config"
        ]
        return list(_read(Path(settings["catalog"]))["targets"])
    except (OSError, ValueError, LookupError, TypeError):
        return []


def levels(ctx: typer.Context) -> list[str]:
    """Levels of the catalog that was named before."""
    return [str(level) for level in _catalog(ctx).get("granularities", [])]


def _catalog(ctx: typer.Context) -> dict[str, Any]:
    try:
        return _read(_named(ctx, "catalog"))
    except (OSError, ValueError, LookupError, TypeError):
        return {}


def _named(ctx: typer.Context, argument: str) -> Path:
    """A command's first argument; of a line that ends with an option without its value, Typer gives the words alone."""
    return Path(ctx.params[argument] or ctx.args[0])


def _read(catalog: Path) -> dict[str, Any]:
    return dict(json.loads((catalog / "catalog.json").read_text(encoding="utf-8")))


def presets() -> list[str]:
    """Of quality rules."""
    from pipeline.config import Quality

    return list(get_args(Quality.model_fields["preset"].annotation))


def build_settings(incomplete: str) -> list[str]:
    """Keys of a build, and after `=` the values of one that has a few."""
    from pipeline.config import Build

    return [found for found in _settings(Build) if found.startswith(incomplete)]


def train_settings(incomplete: str) -> list[str]:
    """Keys of a run, and after `=` the values of one that has a few: `mixture.mixer=dga`."""
    from trainer.config import Train

    return [found for found in _settings(Train) if found.startswith(incomplete)]


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
