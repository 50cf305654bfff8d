"""Run the examples of a Markdown page, top to bottom, in the current folder.

A comment before a fenced block sets how it is run:

    <!-- not run: REASON -->          Its commands are only parsed, with all their options.
    <!-- exit code: 2 -->             Its last command ends with this code.
    <!-- may be empty -->             Its query may have an empty result.
    <!-- file: configs/mine.toml -->  It is written to that file.
    <!-- of: build -->                It is a part of such a config (or of: add, train, experiment).
"""

import json
import re
import shlex
import tomllib
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from itertools import takewhile
from pathlib import Path
from typing import Any

import duckdb
import yaml
from markdown_it import MarkdownIt
from typer.main import get_command
from typer.testing import CliRunner

import data_catalog
from data_catalog.errors import UserError
from data_catalog.query.run_views import RUN_VIEWS
from data_catalog.settings import parse
from flows.cli.app import app
from tests.helpers.tiny_workspace import inside

CATALOG = Path("catalogs/sample")
COMMENT = re.compile(
    r"<!--\s*(not run|exit code|may be empty|file|of)\b:?\s*(.*?)\s*-->\s*$", re.DOTALL
)
SHELL = {"|", ">", ">>", "<", "&&", "||", ";", "&"}
OF_RUNS = re.compile(
    rf"\b(FROM|JOIN)\s+({'|'.join(RUN_VIEWS)})\b", re.IGNORECASE
)  # views of named runs, which the shell does not have
OF_FOLDERS = re.compile(r"\brun_\w+\('")  # macros over any folder, which Python does not let read
PARTS: dict[str, tuple[str, dict[str, Any]]] = {
    "build": (
        "pipeline.config:Build",
        {"out": "catalogs/part", "source": {"kind": "jsonl", "path": "data/corpus"}},
    ),
    "add": ("pipeline.config:Addition", {}),
    "train": (
        "trainer.config:Train",
        {"catalog": "catalogs/sample", "out": "runs/part", "target": "heldout_biomed"},
    ),
    "experiment": ("flows.recipe:Recipe", {}),
}


class Failed(Exception):
    """An example differs from the page. The message names page, line and block."""


@dataclass(frozen=True)
class Block:
    page: Path
    line: int  # line of its first line of text, from 1
    kind: str  # the word after the fence
    text: str
    notes: Mapping[str, str]  # keys and values of the comment before it

    def fail(self, what: str) -> Failed:
        return Failed(f"{self.page}:{self.line}: {self.kind or 'block without a language'}: {what}")


def blocks(page: Path) -> Iterator[Block]:
    """Yield the fenced blocks of a page. An indented block has no language."""
    notes: dict[str, str] = {}
    for token in MarkdownIt("commonmark").parse(page.read_text(encoding="utf-8")):
        if token.type == "html_block":
            comment = COMMENT.match(token.content.strip())
            notes = {comment[1]: comment[2]} if comment else {}
        elif token.type in ("fence", "code_block"):
            first = token.map[0] + (2 if token.type == "fence" else 1)
            yield Block(page, first, token.info.partition(" ")[0], token.content, notes)
            notes = {}
        elif (
            token.nesting == 1
        ):  # a paragraph, a heading, a table: the comment was not right before the block
            notes = {}


def run_page(page: Path) -> int:
    """Run all blocks of a page in the current folder, and return their number.

    Raises:
        Failed: the first block that cannot be run, or is of an unknown kind.
    """
    names: dict[str, Any] = {"__name__": "documented"}
    found = list(blocks(page))
    for block in found:
        if "not run" in block.notes:
            _look_at(block)
        elif "file" in block.notes:
            path = Path(block.notes["file"])
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text, encoding="utf-8")
        elif block.kind == "python":
            _run_python(block, names)
        elif block.kind in KINDS:
            KINDS[block.kind](block)
        else:
            raise block.fail(
                f"expected one of python, {', '.join(KINDS)}, or <!-- not run: REASON --> before it"
            )
    return len(found)


def _look_at(block: Block) -> None:
    if not block.notes["not run"]:
        raise block.fail("<!-- not run: REASON --> has no reason")
    if block.kind == "sh":
        for line, words in _commands(block):
            if words[0] == "clustermix":
                _parse(block, line, words[1:])


def _run_sh(block: Block) -> None:
    """Run each line in this process, as the command line would."""
    commands = list(_commands(block))
    for number, (line, words) in enumerate(commands, start=1):
        if words[0] != "clustermix" or SHELL & set(words):
            raise block.fail(
                f"found {line}. Only clustermix commands without pipes are run. Add "
                "<!-- not run: REASON --> before the block."
            )
        expected = int(block.notes.get("exit code", 0)) if number == len(commands) else 0
        done = CliRunner().invoke(app, words[1:])
        code = 2 if isinstance(done.exception, UserError) else done.exit_code
        if code != expected:
            raised = "".join(traceback.format_exception(done.exception)) if done.exception else ""
            raise block.fail(
                f"exit code {code}, expected {expected}: {line}\n{done.output}{raised}"
            )


def _commands(block: Block) -> Iterator[tuple[str, list[str]]]:
    """Yield each command of a block and its words. A backslash continues a line."""
    for line in re.sub(r"\\\n\s*", "", block.text).splitlines():
        words = shlex.split(line, comments=True)
        if words:
            yield line, words


def _parse(block: Block, line: str, words: list[str]) -> None:
    words = list(takewhile(lambda word: word not in SHELL, words))
    command: Any = get_command(app)
    try:
        while hasattr(command, "commands"):
            known = {name for parameter in command.params for name in parameter.opts}
            flags = list(takewhile(lambda word: word.startswith("-"), words))
            if not known.issuperset(flags):
                raise ValueError(f"unknown: {flags}")
            words = words[len(flags) :]
            if not words:  # such as `clustermix --version`
                return
            command = command.commands[words.pop(0)]
        command.make_context(command.name, words)
    except (Exception, SystemExit) as error:
        raise block.fail(f"not a command with these options: {line}\n{error!r}") from error


def _run_python(block: Block, names: dict[str, Any]) -> None:
    code = "\n" * (block.line - 1) + block.text  # so that a traceback gives the line of the page
    try:
        exec(compile(code, str(block.page), "exec"), names)
    except Exception as error:
        raise block.fail(f"\n{traceback.format_exc()}") from error


def _run_sql(block: Block) -> None:
    """Run a query from Python and in a DuckDB shell, where possible. It must return rows."""
    found: list[Any] = []
    try:
        if not OF_FOLDERS.search(block.text):
            found = data_catalog.open(CATALOG, runs=["runs/*"]).sql(block.text).fetchall()
        if not OF_RUNS.search(block.text):
            sql = block.text.replace("'runs/", f"'{Path.cwd()}/runs/")
            with inside(CATALOG), duckdb.connect("catalog.duckdb", read_only=True) as shell:
                found = shell.execute(sql).fetchall()
    except (duckdb.Error, UserError) as error:
        raise block.fail(str(error)) from error
    if not found and "may be empty" not in block.notes:
        raise block.fail("no rows. Add <!-- may be empty --> before the block.")


def _check_toml(block: Block) -> None:
    """Check a part of a config against the config that its comment names."""
    if block.notes.get("of") not in PARTS:
        raise block.fail(
            "neither a file nor a part of a config. Add <!-- file: NAME --> or "
            f"<!-- of: {'|'.join(PARTS)} --> before the block."
        )
    place, base = PARTS[block.notes["of"]]
    module, _, name = place.partition(":")
    model = getattr(import_module(module), name)
    try:
        parse(model, {**base, **tomllib.loads(block.text)}, "the config")
    except (tomllib.TOMLDecodeError, UserError) as error:
        raise block.fail(str(error)) from error


def _check_by(read: Callable[[str], object]) -> Callable[[Block], None]:
    def check(block: Block) -> None:
        try:
            read(block.text)
        except (ValueError, yaml.YAMLError) as error:
            raise block.fail(str(error)) from error

    return check


KINDS: dict[str, Callable[[Block], None]] = {
    "sh": _run_sh,
    "sql": _run_sql,
    "toml": _check_toml,
    "json": _check_by(json.loads),
    "yaml": _check_by(yaml.safe_load),
    "text": lambda block: None,
}
