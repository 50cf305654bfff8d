"""Typed configs: defaults < TOML file < `--set key.sub=value`; unknown keys are refused by their dotted path."""

import difflib
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from data_catalog.errors import UserError


class Settings(BaseModel):
    """A frozen config; subclasses live beside the code they configure."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


Config = TypeVar("Config", bound=Settings)


def load(model: type[Config], path: Path | None, overrides: Sequence[str] = ()) -> Config:
    """Read `path` (TOML) and apply `overrides` such as `"cluster.seed=1"`.

    Raises:
        UserError: the file is missing or is not TOML, a key is unknown or a value does not fit; the dotted path is named.
    """
    tree: dict[str, Any] = {}
    if path is not None:
        try:
            tree = tomllib.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise UserError(f"config {path}: cannot be read ({error.strerror}); give the path of a TOML file") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise UserError(f"config {path}: not valid TOML ({error})") from error
    for override in overrides:
        _apply(tree, override)
    return parse(model, tree, str(path or "--set"))


def parse(model: type[Config], tree: dict[str, Any], name: str) -> Config:
    """Validate a plain mapping; see `load` for the errors."""
    try:
        return model.model_validate(tree)
    except ValidationError as error:
        raise UserError("\n".join(_sentence(model, name, detail) for detail in error.errors())) from None


def _apply(tree: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise UserError(f"--set {override}: expected key.sub=value")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text  # a bare word is a string
    node = tree
    *parents, last = key.split(".")
    for parent in parents:
        node = node.setdefault(parent, {})
        if not isinstance(node, dict):
            raise UserError(f"--set {override}: {parent} is not a table")
    node[last] = value


def _sentence(model: type[BaseModel], name: str, detail: Any) -> str:
    dotted = ".".join(str(step) for step in detail["loc"]) or "(top level)"
    if detail["type"] != "extra_forbidden":
        return f"{name}: {dotted}: {detail['msg']}, found {detail['input']!r}"
    known = _keys(model, detail["loc"][:-1])
    close = difflib.get_close_matches(str(detail["loc"][-1]), known, n=1)
    hint = f"did you mean {close[0]}?" if close else f"known keys: {', '.join(known)}"
    return f"{name}: {dotted}: unknown key; {hint}"


def _keys(model: type[BaseModel], location: Sequence[str | int]) -> list[str]:
    """Names a config accepts at `location`, walking into nested models, lists and tagged unions."""
    models: list[type[BaseModel]] = [model]
    for step in location:
        if isinstance(step, int):
            continue
        inner = [found for m in models if step in m.model_fields for found in _models(m.model_fields[step].annotation)]
        models = inner or models  # a union's tag is a step of its own: stay
    return sorted({key for m in models for key in m.model_fields})


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in getattr(annotation, "__args__", ()) for model in _models(argument)]
