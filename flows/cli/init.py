"""The command `init`: config files for a new project, for those who installed the package only."""

import json
from enum import StrEnum
from importlib.resources import files
from pathlib import Path
from typing import Annotated

import typer

from data_catalog.errors import UserError
from flows.cli.options import START, JsonOption, examples
from flows.cli.output import print_json

init_commands = typer.Typer()


class Corpus(StrEnum):
    """Kind of corpus that a project begins with."""

    texts = "texts"
    jsonl = "jsonl"
    rpv2 = "rpv2"


# The config of the build, that of the training, and what the user puts where.
RECIPES = {
    Corpus.texts: ("text.toml", "train_text.toml"),
    Corpus.jsonl: ("jsonl.toml", "train_jsonl.toml"),
    Corpus.rpv2: ("rpv2.toml", "train_rpv2.toml"),
}


@init_commands.command(
    "init",
    rich_help_panel=START,
    epilog=examples("init texts", "init texts --source notes --target notes/recipes"),
)
def init_command(
    corpus: Annotated[
        Corpus,
        typer.Argument(
            help="Kind of corpus: a folder of text files, JSON lines, or RedPajama-V2.",
            show_default=False,
        ),
    ],
    source: Annotated[
        str | None, typer.Option(metavar="PATH", help="Your corpus. Default: the recipe's.")
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(
            metavar="PATH", help="Documents of the kind that you want more of. Default: likewise."
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for the config files.")] = Path("configs"),
    as_json: JsonOption = False,
) -> None:
    """Write the config files of a build and a training. Existing files are never overwritten."""
    names = RECIPES[corpus]
    if existing := [out / name for name in names if (out / name).exists()]:
        raise UserError(f"{existing[0]}: exists already. Remove it, or choose another --out.")
    texts = [(files("flows.cli.configs") / name).read_text(encoding="utf-8") for name in names]
    paths = [out / name for name in names]
    out.mkdir(parents=True, exist_ok=True)
    for path, text in zip(paths, texts, strict=True):
        path.write_text(_with_paths(text, source, target), encoding="utf-8")
    build, train = paths
    if as_json:
        print_json({"build": str(build), "train": str(train)})
        return
    print(f"{build}\n{train}\nEdit the paths in them, then run:")
    print(f"  clustermix build {build}\n  clustermix train {train}")


def _with_paths(text: str, source: str | None, target: str | None) -> str:
    """Return a config with other paths in its tables [source] and [[targets]]."""
    chosen = {"[source]": source, "[[targets]]": target}
    table, lines = "", []
    for line in text.splitlines(keepends=True):
        if line.startswith("["):
            table = line.split("#")[0].strip()
        path = chosen.get(table)
        replaced = path is not None and line.startswith("path = ")
        lines.append(f"path = {json.dumps(path, ensure_ascii=False)}\n" if replaced else line)
    return "".join(lines)
