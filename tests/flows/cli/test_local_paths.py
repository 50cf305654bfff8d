"""Every path is refused at once if it is a URL, except those that may be one."""

import importlib
import inspect
import pkgutil
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import pytest
from pydantic import TypeAdapter, ValidationError

import data_catalog
import pipeline
import trainer
from data_catalog.errors import UserError
from data_catalog.settings import FolderPath, Settings, parse
from flows.cli.app import app
from flows.cli.failures import describe_error
from pipeline.config import Dataset, Embed, Tokenizer
from pipeline.location import parse_location
from trainer.config import Model

URLS = ("s3://bucket/x", "file:///tmp/x", "http:/x", "zip::s3://bucket/x.zip", "hf://a/b")


_PARSERS = {argument.func for argument in get_args(FolderPath) if hasattr(argument, "func")}


NAMES = (Embed, "model"), (Tokenizer, "path"), (Model, "path"), (Dataset, "name")


def names_path(annotation: Any) -> bool:
    """Return whether a type is Path, or has it among its arguments."""
    return annotation is Path or any(map(names_path, get_args(annotation)))


def accepts_urls(annotation: Any) -> bool:
    """Return whether a type is `Location` or `FolderPath`, or has one among its arguments."""
    return any(
        getattr(argument, "func", None) in {parse_location, *_PARSERS} or accepts_urls(argument)
        for argument in get_args(annotation)
    )


def settings_classes(parent: type = Settings) -> list[type[Settings]]:
    children = [child for child in parent.__subclasses__() if "tests." not in child.__module__]
    return [*children, *(inner for child in children for inner in settings_classes(child))]


def path_fields() -> list[Any]:
    """Return the type of each path in a config that is no `Location`."""
    for package in (data_catalog, pipeline, trainer):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not module.name.endswith("__main__"):
                importlib.import_module(module.name)
    importlib.import_module("flows.recipe")
    return [
        pytest.param(hint, id=f"{model.__name__}.{name}")
        for model in settings_classes()
        for name, hint in get_type_hints(model, include_extras=True).items()
        if name in model.model_fields and names_path(hint) and not accepts_urls(hint)
    ]


def path_parameters() -> list[Any]:
    """Return each command with the name of each of its parameters that is a path."""
    commands = [
        command.callback
        for group in app.registered_groups
        for command in group.typer_instance.registered_commands
    ]
    return [
        pytest.param(command, name, id=f"{command.__name__}.{name}")
        for command in commands
        for name, parameter in inspect.signature(command, eval_str=True).parameters.items()
        if names_path(parameter.annotation)
    ]


def test_paths_are_found():
    fields = {parameter.id for parameter in path_fields()}
    assert {"Labels.path", "Mixture.file", "Recipe.out"} <= fields
    assert not {"Jsonl.path", "Target.path", "Build.out", "Train.catalog", "Train.out"} & fields
    parameters = {parameter.id for parameter in path_parameters()}
    assert {"rebuild_command.catalog", "demo_command.out"} <= parameters
    assert not {"query_command.catalog", "add_command.catalog"} & parameters
    assert len(parameters) > 20


@pytest.mark.parametrize("url", URLS)
@pytest.mark.parametrize("hint", path_fields())
def test_a_path_of_a_config_is_no_url(hint, url):
    adapter = TypeAdapter(hint)
    for value in (url, Path(url)):
        with pytest.raises(ValidationError, match="fetch catalog"):
            adapter.validate_python(value)
    assert adapter.validate_python("a/b:c") == Path("a/b:c")
    assert adapter.validate_python("./s3:/x") == Path("s3:/x")
    assert adapter.validate_python("/tmp/s3://x") == Path("/tmp/s3:/x")


@pytest.mark.parametrize("url", URLS)
@pytest.mark.parametrize(("model", "key"), NAMES)
def test_a_folder_or_a_name_on_the_hub_is_no_url(model, key, url):
    with pytest.raises(UserError, match=f"^test: {key}: .*not a URL.*{url}'$"):
        parse(model, {key: url}, "test")
    for name in ("a/b", "/tmp/a:b", "./s3:/x", "name"):
        assert getattr(parse(model, {key: name}, "test"), key) == name


@pytest.mark.parametrize("url", URLS)
@pytest.mark.parametrize(("command", "name"), path_parameters())
def test_a_path_of_a_command_is_no_url(command, name, url):
    parameter = inspect.signature(command, eval_str=True).parameters[name]
    inner = get_args(parameter.annotation)[0]
    is_list = get_origin(inner) is list or list in map(get_origin, get_args(inner))
    with pytest.raises(UserError, match=f"^{name}: .*fetch catalog"):
        command(**{name: [Path(url)] if is_list else Path(url)})


@pytest.mark.parametrize(
    "words",
    [
        ["rebuild", "s3://bucket/x"],
        ["export", "catalog", "s3://bucket/x", "copy"],
        ["demo", "--out", "s3://bucket/x"],
        ["experiment", "train.toml", "--variant", "natural"],
        ["experiment", "recipe.toml"],
    ],
)
def test_a_url_ends_a_command_before_anything_is_written(tmp_path, monkeypatch, words):
    train = 'target = "t"\n'
    (tmp_path / "train.toml").write_text(f'catalog = "c"\nout = "s3://run"\n{train}')
    recipe = (
        f'out = "s3://e"\n[run]\ncatalog = "c"\n{train}[variants.a.mixture]\nmixer = "natural"\n'
    )
    (tmp_path / "recipe.toml").write_text(recipe)
    before = sorted(path.name for path in tmp_path.iterdir())
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="clustermix fetch catalog URL FOLDER") as raised:
        app(words, prog_name="clustermix", standalone_mode=False)
    sentence, code = describe_error(raised.value)
    assert (len(sentence.splitlines()), code) == (1, 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == before
