"""What the README says must work: its queries, its recipes, its commands."""

import re
import shlex
from pathlib import Path

import pytest

import data_catalog

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
QUERIES = re.findall(r"```sql\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize("query", QUERIES, ids=range(len(QUERIES)))
def test_every_query_runs(built, query):
    data_catalog.open(built[0]).sql(query).fetchall()


def test_there_are_five_queries_each_with_its_answer():
    assert len(QUERIES) >= 5
    assert len(re.findall(r"```\n```text\n[^`\s]", README)) == len(QUERIES)


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_every_command_exists(page):
    """With its options: each line that begins with `clustermix` is parsed as the command line would."""
    from typer.main import get_command

    from flows.cli import app

    text = page.read_text(encoding="utf-8")
    known = get_command(app).commands
    assert set(re.findall(r"`clustermix (\w+)", text)) <= set(known)
    for line in re.findall(r"^clustermix (.*)$", text, re.MULTILINE):
        command, words = get_command(app), shlex.split(line, comments=True)
        while hasattr(command, "commands"):
            command = command.commands[words.pop(0)]
        command.make_context(command.name, words)


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_every_link_leads_somewhere(page):
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")) if "://" not in link]
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_make_knows_the_commands():
    makefile = (ROOT / "Makefile").read_text()
    for target in set(re.findall(r"^make (\w+)", README, re.MULTILINE)):
        assert f"\n{target}:" in makefile
