"""Every example of the README and of docs/ runs, in a folder with tiny stand-ins."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.main import get_command

from flows.cli.app import app
from tests.helpers.documented import Failed, blocks, run_page
from tests.helpers.repository import ROOT
from tests.helpers.tiny_workspace import workspace

README = ROOT / "README.md"
PAGES = {
    "README": README,
    **{
        str(path.relative_to(ROOT / "docs").with_suffix("")): path
        for path in sorted((ROOT / "docs").rglob("*.md"))
    },
}


@pytest.fixture
def here(
    sample_workspace: Path,
    tmp_path: Path,
    forked_trainer: None,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Path]:
    # the shell is looked for among the processes above this one, and a test may have none there
    monkeypatch.setattr("shellingham.detect_shell", lambda: ("bash", "/bin/bash"))
    with workspace(sample_workspace, tmp_path / "workspace") as folder:
        yield folder


@pytest.mark.parametrize("name", PAGES)
def test_every_example_runs(here: Path, name: str) -> None:
    try:
        run_page(PAGES[name])
    except Failed as failed:
        pytest.fail(str(failed), pytrace=False)


@pytest.mark.parametrize("name", PAGES)
def test_every_link_leads_somewhere(name: str) -> None:
    page = PAGES[name]
    links = [
        link
        for link in re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8"))
        if "://" not in link
    ]
    assert [link for link in links if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("name", PAGES)
def test_every_command_named_in_a_sentence_exists(name: str) -> None:
    assert set(re.findall(r"`clustermix ([a-z]+)", PAGES[name].read_text(encoding="utf-8"))) <= set(
        get_command(app).commands
    )


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            "```sh\nclustermix verify catalogs/sampel\n```",
            r"page\.md:2: sh: exit code 2, expected 0",
        ),
        ("```sh\nclustermix verify catalogs/sample --loud\n```", "exit code 2"),
        (
            "<!-- exit code: 2 -->\n```sh\nclustermix verify catalogs/sample\n```",
            "exit code 0, expected 2",
        ),
        (
            "<!-- not run: network -->\n```sh\nclustermix fetch rpv2 x --shard 1\n```",
            "not a command with these options",
        ),
        (
            "<!-- not run: network -->\n```sh\nclustermix fly\n```",
            "not a command with these options",
        ),
        (
            "<!-- not run: network -->\n```sh\nclustermix --loud fetch\n```",
            "not a command with these options",
        ),
        ("<!-- not run: -->\n```sh\nmake\n```", "no reason"),
        (
            "<!-- not run: network -->\n\nA sentence between.\n\n```sh\nmake demo\n```",
            "Only clustermix commands",
        ),
        (
            "```sh\nclustermix domains catalogs/sample | head\n```",
            "Only clustermix commands",
        ),
        (
            "```python\nx = 1\n```\nText.\n```python\nassert x == 2\n```",
            r"page\.md:6: python: (.|\n)*line 6(.|\n)*AssertionError",
        ),
        ("```sql\nSELECT domane FROM domains\n```", "domane"),
        ("```sql\nFROM domains WHERE level = 65\n```", "no rows"),
        ("```sql\nFROM run_summary('runs/nothing')\n```", "runs/nothing"),
        (
            "<!-- of: build -->\n```toml\n[cluster]\ngranularity = [4]\n```",
            "cluster.granularity: unknown key",
        ),
        ("```toml\nseed = 1\n```", "toml: neither a file nor a part of a config"),
        ("```json\n{1}\n```", "Expecting property name"),
        ("```\nclustermix demo\n```", "page.md:2: block without a language: expected one of"),
        ("Text.\n\n    clustermix demo\n", "page.md:3: block without a language: expected one of"),
        ("```ruby\n```", "ruby: expected one of"),
    ],
)
def test_a_page_that_says_something_wrong_fails(here: Path, text: str, says: str) -> None:
    (here / "page.md").write_text(text)
    with pytest.raises(Failed, match=says):
        run_page(Path("page.md"))


def test_a_page_that_holds_passes(here: Path) -> None:
    page = """
<!-- file: configs/mine.toml -->
```toml
out = "catalogs/mine"
[source]
kind = "jsonl"
path = "data/corpus"
```
```sh
# first a comment
clustermix plan configs/mine.toml \\
  --json   # and then one
```
<!-- exit code: 2 -->
```sh
clustermix plan configs/none.toml
```
<!-- may be empty -->
```sql
FROM domains WHERE level = 65
```
<!-- of: train -->
```toml
[mixture]
eta = 2.0
```
- in a list

  ```python
  x = 1
  ```
```python
assert x == 1
```
<!-- not run: Docker -->
```sh
docker run clustermix verify catalogs/sample
clustermix verify catalogs/sample | wc -l
```
"""
    (here / "page.md").write_text(page)
    assert run_page(Path("page.md")) == len(list(blocks(Path("page.md")))) == page.count("```") / 2
