"""Typed configurations.

Values come from defaults, then a TOML file, then overrides such as `--set key.sub=value`. Unknown
keys are refused.
"""

import re
import tomllib
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Annotated, Any, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    PlainSerializer,
    PlainValidator,
    ValidationError,
    WithJsonSchema,
)

from data_catalog.errors import UserError, suggestion
from data_catalog.folders import URL_REMEDY, is_url
from data_catalog.place import Folder, Place, parse_folder


def _no_url(value: Any) -> Any:
    if isinstance(value, str | PurePath) and is_url(value):
        raise ValueError(f"expected a path on this machine, not a URL ({URL_REMEDY})")
    return value


LocalPath = Annotated[Path, BeforeValidator(_no_url)]
"""A path on this machine, for what is not read from or written to URLs: runs and files.
To name a folder such as `a:/b`, give its absolute path."""


def _no_url_of_model(value: str) -> str:
    if is_url(value):
        raise ValueError(
            "expected a path on this machine or a name on the Hugging Face hub such as "
            "ORGANISATION/NAME, not a URL. Download it, and give the path"
        )
    return value


FolderOrName = Annotated[str, AfterValidator(_no_url_of_model)]
"""A folder on this machine or a name on the Hugging Face hub: a model, tokenizer or dataset."""


def _folder(value: Any) -> Folder:
    if isinstance(value, Place):
        return value
    if not isinstance(value, str | PurePath):
        raise ValueError("expected a path or a URL")
    try:
        return parse_folder(str(value))
    except UserError as error:
        raise ValueError(str(error)) from error


FolderPath = Annotated[
    Folder,
    PlainValidator(_folder),
    PlainSerializer(str, return_type=str, when_used="json"),
    WithJsonSchema({"type": "string", "format": "path"}),
]
"""A folder on this machine, or in an object store by its URL."""


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
    """Read a configuration from a TOML file.

    Args:
        model: Class of the configuration.
        path: TOML file. None means that all values come from `overrides`.
        overrides: Assignments such as `"cluster.seed=1"`.

    Raises:
        UserError: The file is missing or is not TOML, a key is unknown, or a value is invalid. The
            message names the dotted path of the key.
    """
    tree = {} if path is None else read_toml(path)
    return parse(model, overridden(tree, overrides), str(path or "--set"))


def read_toml(path: Path) -> dict[str, Any]:
    """Return the content of a TOML file as a plain mapping.

    Raises:
        UserError: The file is missing, is not UTF-8 or is not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))  # editors write such a mark
    except OSError as error:
        raise UserError(
            f"config {path}: cannot be read ({error.strerror}). Give the path of a TOML file."
        ) from error
    except UnicodeDecodeError as error:
        raise UserError(
            f"config {path}: not UTF-8 text (byte {error.start}). Save the file as UTF-8."
        ) from error
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise UserError(f"config {path}: not valid TOML ({error}). Correct the file.") from error


def parse(model: type[Config], tree: dict[str, Any], name: str) -> Config:
    """Validate a plain mapping.

    Args:
        model: Class of the configuration.
        tree: The mapping.
        name: Name of the file in error messages.

    Raises:
        UserError: A key is unknown or missing, or a value is invalid.
    """
    try:
        return model.model_validate(tree)
    except ValidationError as error:
        if (kind := _kind(tree)) and not model.model_fields.keys() >= kind.keys:
            raise UserError(f"{name}: this is {kind.remedy}.") from None
        raise UserError(
            "\n".join(_sentence(model, name, detail) for detail in error.errors())
        ) from None


@dataclass(frozen=True)
class _Kind:
    """A kind of config file, recognised by keys that the others lack."""

    keys: frozenset[str]
    remedy: str


_KINDS = (
    _Kind(frozenset({"catalog"}), "a training config: run `clustermix train`"),
    _Kind(frozenset({"source", "out"}), "a build config: run `clustermix build`"),
    _Kind(frozenset({"source"}), "a config of an addition: run `clustermix add`"),
)


def _kind(tree: Mapping[str, Any]) -> _Kind | None:
    return next((kind for kind in _KINDS if tree.keys() >= kind.keys), None)


def overridden(tree: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Return a copy of a plain mapping with overrides such as `"cluster.seed=1"` applied.

    Raises:
        UserError: An override is not of the form `key.sub=value` or not UTF-8, or one of its
            parents is not a table.
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
        override.encode()
    except UnicodeEncodeError as error:
        raise UserError(
            f"--set {key}: the value is not UTF-8 (character {error.start}). Rename what it names."
        ) from None
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text  # a bare word is a string
    node: Any = tree
    *parents, last = key.split(".")
    for parent in parents:
        if isinstance(node, list):  # a list of tables, such as [[targets]]
            if not parent.isdecimal() or int(parent) >= len(node):
                raise UserError(
                    f"--set {override}: entry {parent} not found. The list has {len(node)} "
                    "entries, numbered from 0."
                )
            node = node[int(parent)]
        else:
            node = node.setdefault(parent, {})
        if not isinstance(node, dict | list):
            raise UserError(f"--set {override}: {parent} is not a table.")
    if isinstance(node, list):
        raise UserError(
            f"--set {override}: {parents[-1]} is a list. Give the whole list, or a key of an entry "
            f"such as {'.'.join(parents)}.0.KEY=value."
        )
    node[last] = value


def _sentence(model: type[BaseModel], name: str, detail: Any) -> str:
    path, value, context = list(map(str, detail["loc"])), detail["input"], detail.get("ctx", {})
    match detail["type"]:
        case "extra_forbidden":
            hint = suggestion(path[-1], _keys(model, detail["loc"][:-1]), "Known keys")
            text = f"unknown key. {hint}"
        case "missing":
            text = "missing. Give it in the file or with --set."
        case "literal_error":
            expected = context["expected"]
            text = f"found {value!r}. Expected {expected}.{_closest(value, expected)}"
        case "union_tag_invalid":
            tag, tags = context["tag"], context["expected_tags"]
            name_of_tag = _bare(context["discriminator"])
            text = f"{name_of_tag} is {tag!r}. Expected one of {tags}.{_closest(tag, tags)}"
        case "union_tag_not_found":
            text = (
                f"{_bare(context['discriminator'])} is missing. It selects the kind of the table."
            )
        case "value_error":
            text = f"{detail['msg'].removeprefix('Value error, ')}{_shown(value)}"
        case other:
            text = f"expected {_expected(other, context)}{_shown(value)}"
    return f"{name}: {'.'.join(path) or '(top level)'}: {text}"


def _expected(kind: str, context: Mapping[str, Any]) -> str:
    """Return what pydantic expected in place of a value, from the type of its error."""
    limits = {
        "greater_than": "a number above {gt:g}",
        "greater_than_equal": "a number of at least {ge:g}",
        "less_than": "a number below {lt:g}",
        "less_than_equal": "a number of at most {le:g}",
        "string_too_short": "a text of at least {min_length} characters",
        "string_too_long": "a text of at most {max_length} characters",
        "too_short": "at least {min_length} entries",
        "too_long": "at most {max_length} entries",
        "string_pattern_mismatch": "letters A to Z and a to z, digits, `_`, `.` and `-`, "
        "beginning with a letter or digit",
    }
    if kind in limits:
        return limits[kind].format(**context)
    for start, expected in _EXPECTED.items():
        if kind.startswith(start):
            return expected
    return "another value"


def _closest(value: Any, expected: str) -> str:
    """Return a hint if one of the names quoted in pydantic's message is similar, else nothing."""
    names = re.findall(r"'([^']*)'", expected)
    hint = suggestion(str(value), names)
    return f" {hint}" if hint.endswith("?") else ""


_EXPECTED = {  # by the beginning of the type of pydantic's error
    "int": "a whole number",
    "finite_number": "a finite number",
    "float": "a number",
    "bool": "true or false",
    "string": "a text",
    "path": "a path",
    "tuple": "a list",
    "list": "a list",
    "dict": "a table",
    "model": "a table",
    "dataclass": "a table",
}


def _bare(name: str) -> str:
    return name.strip("'")


def _shown(value: Any) -> str:
    """Return the text of a value. Tables are omitted, because they are long."""
    return "" if isinstance(value, Mapping | BaseModel) else f", found {value!r}"


def _keys(model: type[BaseModel], location: Sequence[str | int]) -> list[str]:
    """Return the keys that a configuration accepts at `location`."""
    models: list[type[BaseModel]] = [model]
    for step in location:
        if isinstance(step, int):
            continue
        inner = [
            nested
            for m in models
            if step in m.model_fields
            for nested in _models(m.model_fields[step].annotation)
        ]
        models = inner or models  # the tag of a union is a step without a field
    return sorted({key for m in models for key in m.model_fields})


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [
        model for argument in getattr(annotation, "__args__", ()) for model in _models(argument)
    ]
