"""The five commands of the quickstart, run unchanged in a new folder of text files."""

import re
import shlex
import traceback
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flows.cli.app import app
from tests.helpers.documented import blocks
from tests.helpers.repository import ROOT
from tests.helpers.tiny_corpus import SUBJECTS
from tests.helpers.tiny_workspace import RECIPES, SHORT_TRAINING, document, edited, inside

PAGE = ROOT / "docs" / "quickstart.md"
COMMANDS = [
    line
    for block in blocks(PAGE)
    if block.kind == "sh"
    for line in re.sub(r"\\\n\s*", "", block.text).splitlines()
]
SHORT = {"embed.max_tokens": "32", "cluster.iterations": "4", "tokenizer.vocabulary": "400"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for subject in SUBJECTS:
        for i in range(20):
            file = tmp_path / "texts" / subject / f"note {i:02}.md"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(f"# <b>{subject}</b> {i}\n\n{document(subject, 9000 + 3 * i)}\n")
    (tmp_path / "texts" / "sailing" / "menu.txt").write_bytes("crème brûlée".encode("latin-1"))
    (tmp_path / "texts" / "music" / "song.txt").write_bytes(b"\0\1\2\3")
    (tmp_path / "configs").mkdir()
    for name, changes in (("text.toml", SHORT), ("train_text.toml", SHORT_TRAINING)):
        (tmp_path / "configs" / name).write_text(
            edited((RECIPES / name).read_text(encoding="utf-8"), changes)
        )
    return tmp_path


def test_the_quickstart_has_five_commands() -> None:
    assert [line.split()[:2] for line in COMMANDS] == [
        ["make", "install"],
        ["clustermix", "build"],
        ["clustermix", "query"],
        ["clustermix", "report"],
        ["clustermix", "train"],
    ]


def test_the_five_commands_build_query_report_and_train(folder: Path, forked_trainer: None) -> None:
    output = {}
    with inside(folder):
        for line in COMMANDS[1:]:
            _, command, *words = shlex.split(line, comments=True)
            done = CliRunner().invoke(app, [command, *words])
            assert done.exit_code == 0, (
                line,
                done.output,
                "".join(traceback.format_exception(done.exception)),
            )
            output[command] = done.output
    assert "bad_utf8 1" in output["build"]
    assert "not_text 1" in output["build"]
    assert re.search(r"\bmine +20\b", output["build"])
    assert any(word in output["query"] for word in SUBJECTS["sailing"])
    page = (folder / "catalog.html").read_text()
    assert {
        subject: any(word in page for word in words) for subject, words in SUBJECTS.items()
    } == {
        "cooking": False,  # files of the target are not part of the corpus
        "sailing": True,
        "astronomy": True,
        "music": True,
    }
    assert "<b>sailing" not in page
    run = (folder / "runs" / "texts" / "report.html").read_text()
    assert "mine" in run
    assert any(word in run for words in SUBJECTS.values() for word in words)
