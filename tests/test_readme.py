"""What the README says must work: its queries, its recipes, its commands."""

import re
from pathlib import Path

import pytest

import data_catalog

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
QUERIES = re.findall(r"```sql\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize("query", QUERIES, ids=range(len(QUERIES)))
def test_every_query_runs(built, query):
    data_catalog.open(built[0]).sql(query).fetchall()


def test_there_are_five_queries_each_with_its_answer():
    assert len(QUERIES) >= 5
    assert len(re.findall(r"```\n```text\n[^`\s]", README)) == len(QUERIES)


def test_every_command_exists():
    from typer.main import get_command

    from flows.cli import app

    used = set(re.findall(r"^clustermix (\w+)", README, re.MULTILINE)) | set(re.findall(r"`clustermix (\w+)", README))
    assert used
    assert used <= set(get_command(app).commands)


def test_every_link_leads_somewhere():
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", README) if "://" not in link]
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_make_knows_the_commands():
    makefile = (ROOT / "Makefile").read_text()
    for target in set(re.findall(r"^make (\w+)", README, re.MULTILINE)):
        assert f"\n{target}:" in makefile
