"""The README's training section, command by command, in a folder where `catalogs/sample` is a tiny catalog."""

import json
import re
import shlex
import traceback
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM
from typer.testing import CliRunner

from flows.cli import app
from tests.tiny_catalog import write_tiny_catalog
from tests.tiny_questions import add_quiz
from tests.tiny_training import CONFIG, ROOT

TEXT = (ROOT / "README.md").read_text(encoding="utf-8").partition("## Train on it")[2].partition("\n## ")[0]
COMMANDS = [shlex.split(line, comments=True)[1:] for line in re.findall(r"^clustermix .*$", TEXT, re.MULTILINE)]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    catalog = add_quiz(write_tiny_catalog(tmp_path / "catalogs" / "sample"))
    (catalog / "targets" / "quiz").rename(catalog / "targets" / "mmlu")
    (tmp_path / "configs").mkdir()
    recipe = f'catalog = "catalogs/sample"\nout = "runs/sample-dga"\n{CONFIG}'.replace("steps = 28", "steps = 10").replace(
        "tokens = 16", "tokens = 64"
    )
    (tmp_path / "configs" / "train_sample.toml").write_text(recipe)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_from_a_catalog_to_a_tuned_evaluated_exported_model(folder: Path, prefect_server: None) -> None:
    assert len(COMMANDS) == 6
    for words in COMMANDS:
        done = CliRunner().invoke(app, words)
        assert done.exit_code == 0, (words, "".join(traceback.format_exception(done.exception)))
    runs = folder / "runs"
    assert all((runs / name / "report.html").is_file() for name in ("sample-dga", "sample-natural", "sample-tuned"))
    assert (folder / "report.html").is_file()
    tuned, before = (AutoModelForCausalLM.from_pretrained(runs / "sample-tuned" / name) for name in ("model", "pretrained"))
    assert not tuned.lm_head.weight.equal(before.lm_head.weight)
    assert json.loads((runs / "sample-tuned" / "accuracy.json").read_text())["tasks"]["mmlu_test"]["questions"] == 9
