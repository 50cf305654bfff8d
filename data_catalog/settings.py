"""Typed configs: defaults < TOML file < `--set key.sub=value`; unknown keys are refused by their dotted path."""

import re
import tomllib
from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from data_catalog.errors import UserError, suggestion


class Settings(BaseModel):
    """A frozen section of a configuration. Subclasses live beside the code that they configure.

    The docstring under a field is its description in JSON schemas, in Prefect's forms and in
    docs/reference.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True
    )


Config = TypeVar("Config", bound=Settings)


def load(model: type[Config], path: Path | None, overrides: Sequence[str] = ()) -> Config:
    """Read `path` (TOML) and apply `overrides` such as `"cluster.seed=1"`.

    Raises:
        UserError: the file is missing or is not TOML, a key is unknown or a value does not fit; the dotted path is named.
    """
    tree = {} if path is None else read_toml(path)
    return parse(model, overridden(tree, overrides), str(path or "--set"))


def read_toml(path: Path) -> dict[str, Any]:
    """A TOML file as a plain mapping.

    Raises:
        UserError: the file is missing or is not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(
            f"config {path}: cannot be read ({error.strerror}); give the path of a TOML file"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"config {path}: not valid TOML ({error})") from error


def parse(model: type[Config], tree: dict[str, Any], name: str) -> Config:
    """Validate a plain mapping; see `load` for the errors."""
    try:
        return model.model_validate(tree)
    except ValidationError as error:
        raise UserError(
            "\n".join(_sentence(model, name, detail) for detail in error.errors())
        ) from None


def overridden(tree: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """A plain mapping with `overrides` such as `"cluster.seed=1"` applied; `tree` stays as it is.

    Raises:
        UserError: an override is not `key.sub=value`, or a key on its way is no table.
    """
    changed = deepcopy(dict(tree))
    for override in overrides:
        _apply(changed, override)
    return changed


def _apply(tree: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise UserError(f"--set {override}: expected key.sub=value")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text  # a bare word is a string
    node: Any = tree
    *parents, last = key.split(".")
    for parent in parents:
        if isinstance(node, list):  # of tables, such as [[targets]]
            if not parent.isdecimal() or int(parent) >= len(node):
                raise UserError(
                    f"--set {override}: found {parent}, expected one of {len(node)} entries by its number, from 0"
                )
            node = node[int(parent)]
        else:
            node = node.setdefault(parent, {})
        if not isinstance(node, dict | list):
            raise UserError(f"--set {override}: {parent} is not a table")
    if isinstance(node, list):
        raise UserError(
            f"--set {override}: {parents[-1]} is a list; give all of it, or a key of an entry, {'.'.join(parents)}.0.KEY=value"
        )
    node[last] = value


def _sentence(model: type[BaseModel], name: str, detail: Any) -> str:
    where, found, expected = list(map(str, detail["loc"])), detail["input"], detail.get("ctx", {})
    match detail["type"]:
        case "extra_forbidden":
            said = f"unknown key; {suggestion(where[-1], _keys(model, detail['loc'][:-1]), 'known keys')}"
        case "missing":
            said = "missing; give it in the file, or with --set"
        case "literal_error":
            said = f"found {found!r}, expected {expected['expected']}; {_closest(found, expected['expected'])}"
        case "union_tag_invalid":
            tag, tags = expected["tag"], expected["expected_tags"]
            said = f"{_bare(expected['discriminator'])} is {tag!r}, expected one of {tags}; {_closest(tag, tags)}"
        case "union_tag_not_found":
            said = f"{_bare(expected['discriminator'])} is missing; it says which keys the table may have"
        case _:
            said = f"{detail['msg'].removeprefix('Value error, ')}{_shown(found)}"
    return f"{name}: {'.'.join(where) or '(top level)'}: {said}"


def _closest(found: Any, expected: str) -> str:
    """Of the quoted names in pydantic's own words."""
    names = re.findall(r"'([^']*)'", expected)
    hint = suggestion(str(found), names)
    return hint if hint.startswith("did you mean") else "take one of them"


def _bare(name: str) -> str:
    return name.strip("'")


def _shown(found: Any) -> str:
    """A value; a whole table would only hide the sentence."""
    return "" if isinstance(found, Mapping | BaseModel) else f", found {found!r}"


def _keys(model: type[BaseModel], location: Sequence[str | int]) -> list[str]:
    """Names a config accepts at `location`, walking into nested models, lists and tagged unions."""
    models: list[type[BaseModel]] = [model]
    for step in location:
        if isinstance(step, int):
            continue
        inner = [
            found
            for m in models
            if step in m.model_fields
            for found in _models(m.model_fields[step].annotation)
        ]
        models = inner or models  # a union's tag is a step of its own: stay
    return sorted({key for m in models for key in m.model_fields})


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [
        model for argument in getattr(annotation, "__args__", ()) for model in _models(argument)
    ]
