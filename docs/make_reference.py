"""Generate the tables of docs/ from the code: `python docs/make_reference.py`.

The text between `<!-- generated: KIND NAME -->` and `<!-- end of KIND NAME -->` is replaced.
The rest of a page is not touched.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import pyarrow as pa
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from data_catalog.format import tables
from data_catalog.place import Folder
from pipeline.config import Addition, Build
from pipeline.location import Place
from trainer.config import Train

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
DETAILS = "## Each target and repetition"
CONFIGS = {"build": Build, "add": Addition, "train": Train}
WORDS = {
    bool: "true or false",
    int: "whole number",
    float: "number",
    str: "text",
    Path: "path",
    Place: "path or URL",
    Folder: "path or URL",
}
BOUNDS = {
    "ge": "≥ {}",
    "gt": "> {}",
    "le": "≤ {}",
    "lt": "< {}",
    "min_length": "at least {}",
    "pattern": "matching `{}`",
}
GENERATED = re.compile(
    r"<!-- generated: (\w+)(?: (\S+))? -->\n.*?<!-- end of \1(?: \2)? -->", re.DOTALL
)


def filled(text: str) -> str:
    """Return the text of a page with its generated parts replaced."""
    return GENERATED.sub(lambda found: _between(found[1], found[2] or ""), text)


def _between(what: str, name: str) -> str:
    mark = f"{what} {name}".strip()
    return f"<!-- generated: {mark} -->\n\n{MAKERS[what](name).strip()}\n\n<!-- end of {mark} -->"


def config_tables(name: str) -> str:
    """Return the keys of a config, with one section per table of the file."""
    of_build = {
        model for field in Build.model_fields.values() for model in _models(field.annotation)
    }
    return "\n".join(
        _sections(CONFIGS[name], "", "Top level", of_build if name == "add" else set())
    )


def _sections(
    model: type[BaseModel], prefix: str, title: str, shown: set[type[BaseModel]]
) -> Iterator[str]:
    """Yield the sections of a model and of its nested models, except those already in `shown`."""
    shown.add(model)
    rows, below = [], []
    for key, field in model.model_fields.items():
        place = f"{prefix}{key}"
        inner = _models(field.annotation)
        rows.append([f"`{place}`", _kind(field), _default(field), _meaning(field, inner, shown)])
        below += [(found, place, field) for found in inner if found not in shown]
    yield f"### {title}\n"
    if model.__doc__ and prefix:
        yield " ".join(model.__doc__.split()) + "\n"
    yield _table(["key", "value", "default", "meaning"], rows)
    for found, place, field in below:
        if found not in shown:
            yield from _sections(found, _prefix(place, field), _title(found, place, field), shown)


def _prefix(place: str, field: FieldInfo) -> str:
    return f"{place}.RULE." if get_origin(field.annotation) is dict else f"{place}."


def _title(model: type[BaseModel], place: str, field: FieldInfo) -> str:
    if "kind" in model.model_fields and place == "source":
        return f'`[source]` with `kind = "{get_args(model.model_fields["kind"].annotation)[0]}"`'
    if get_origin(field.annotation) is tuple:
        return f"`[[{place}]]`"
    return f"`[{_prefix(place, field)[:-1]}]`"


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in get_args(annotation) for model in _models(argument)]


def _meaning(field: FieldInfo, inner: list[type[BaseModel]], shown: set[type[BaseModel]]) -> str:
    meaning = " ".join((field.description or "").split())
    if inner and all(model in shown for model in inner):
        meaning += " Its keys are above."
    return _escaped(meaning)


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "**required**"
    value = field.get_default(call_default_factory=True)
    if value is None or isinstance(value, BaseModel | dict) or value == ():
        return ""
    return f"`{json.dumps(value)}`"


def _kind(field: FieldInfo) -> str:
    return _escaped(", ".join([_type(field.annotation), *_bounds(field.metadata)]))


def _bounds(details: Iterable[Any]) -> list[str]:
    return [
        text.format(getattr(detail, name))
        for detail in details
        for name, text in BOUNDS.items()
        if getattr(detail, name, None) is not None
    ]


def _type(annotation: Any) -> str:
    """Describe a type in words, with its bounds."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if annotation in WORDS:
        return WORDS[annotation]
    if origin is Annotated:
        details = [
            part
            for item in arguments[1:]
            for part in (item.metadata if isinstance(item, FieldInfo) else [item])
        ]
        return ", ".join([_type(arguments[0]), *_bounds(details)])
    if origin is Literal:
        choices = ", ".join(f"`{json.dumps(choice)}`" for choice in arguments)
        return f"one of {choices}" if len(arguments) > 1 else choices
    if origin in (Union, UnionType):
        return " or ".join(
            dict.fromkeys(_type(argument) for argument in arguments if argument is not NoneType)
        )
    if origin is tuple:
        return f"list of: {_type(arguments[0])}"
    return "table of tables" if origin is dict else "table"


def column_table(name: str) -> str:
    """Return the columns of a table of `data_catalog.format.tables`, with their descriptions."""
    table = tables.TABLES[name]
    rows = [
        [f"`{column.name}`", f"`{_arrow(column.type)}`", _escaped(column.description)]
        for column in table.columns
    ]
    return f"{_escaped(table.description)}\n\n{_table(['column', 'type', 'meaning'], rows)}"


def _arrow(kind: pa.DataType) -> str:
    if pa.types.is_list(kind):
        return f"list<{_arrow(kind.value_type)}>"
    if pa.types.is_struct(kind):
        return f"struct<{', '.join(f'{field.name}: {_arrow(field.type)}' for field in kind)}>"
    return str(kind)


def result_list(_: str) -> str:
    """Return a table of all result files."""
    rows = [
        [
            path.name[:10],
            f"[{_escaped(_heading(path))}](../benchmarks/results/{path.name})",
            _command(path),
        ]
        for path in sorted(RESULTS.glob("*.md"))
    ]
    return _table(["date", "what was measured", "made by"], rows)


def _heading(path: Path) -> str:
    return path.read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ")


def _command(path: Path) -> str:
    return (re.findall(r"`(python -m [\w.]+)", path.read_text(encoding="utf-8")) or ["?"])[0].join(
        "``"
    )


def result_tables(pattern: str) -> str:
    """Return the newest results of a name, with their headings below those of the page.

    The details of an experiment are left out.
    """
    path = max(RESULTS.glob(f"*-{pattern}.md"))
    _, about, rest = path.read_text(encoding="utf-8").strip().split("\n\n", 2)
    date, _, machine, *_ = about.split(" · ")
    source = f"[`{path.name}`](../benchmarks/results/{path.name})"
    summary = rest.partition(DETAILS)[0].rstrip() + "\n"
    body = re.sub(r"^## ", "#### ", summary, flags=re.MULTILINE)
    return f"{date} · {machine} · {source}\n\n{body}"


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines) + "\n"


def _escaped(text: str) -> str:
    """Escape text for a Markdown table. Text in backticks stays unchanged, except for `|`."""
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(
        part.replace("|", r"\|")
        if part.startswith("`")
        else re.sub(r"([|*_\[\]])", r"\\\1", part).replace("<", "&lt;")
        for part in parts
    )


MAKERS: dict[str, Callable[[str], str]] = {
    "config": config_tables,
    "columns": column_table,
    "results": result_list,
    "result": result_tables,
}


def main() -> None:
    for page in sorted((ROOT / "docs").rglob("*.md")):
        text = page.read_text(encoding="utf-8")
        if (made := filled(text)) != text:
            page.write_text(made, encoding="utf-8")


if __name__ == "__main__":
    main()
