"""Additions and evaluations that cannot work: each is refused before any stage or model starts."""

import json
import shutil
from pathlib import Path

import pytest

from tests.faults.test_refused_requests import REQUESTS, file, refused, table
from tests.flows.cli.test_main import toml
from tests.helpers.bad_records import GOOD, TARGET, WORDS, Planted, build_and_check, write_good
from tests.helpers.tiny_catalog import write_tiny_catalog
from tests.helpers.tiny_encoder import write_encoder
from tests.helpers.tiny_questions import add_quiz
from tests.helpers.tiny_run import tiny_run_record

pytestmark = REQUESTS


@pytest.fixture(scope="module")
def catalog(tmp_path_factory):
    folder = tmp_path_factory.mktemp("additions")
    settings = write_good(folder, write_encoder(folder / "encoder", WORDS))
    return build_and_check(settings, Planted(GOOD, TARGET))


def record(path: Path, **fields: object) -> str:
    return file(path, json.dumps({"id": "x", "text": "More text.", **fields}) + "\n")


def jsonl(path: str) -> dict[str, object]:
    return {"source": {"kind": "jsonl", "path": path}}


ADDITIONS = {  # the config, given a folder, and what the message says
    "nothing": (lambda _: {}, ("source, targets", "nothing to add")),
    "no source": (lambda at: jsonl(str(at / "none")), ("source.path", "none")),
    "a source without files": (
        lambda at: jsonl(str(Path(record(at / "in/a.csv")).parent)),
        ("source.path", "in"),
    ),
    "a source without the field": (
        lambda at: jsonl(record(at / "a.jsonl")) | {"source.columns": {"text": "body"}},
        ("source.columns.text body", "a.jsonl"),
    ),
    "a table without the column": (
        lambda at: {"source": {"kind": "parquet", "path": table(at / "a.parquet", body=["a"])}},
        ("source.columns", "text"),
    ),
    "an unknown kind of source": (
        lambda at: {"source": {"kind": "excel", "path": str(at)}},
        ("source: kind", "excel"),
    ),
    "a rule that the preset lacks": (
        lambda at: {
            **jsonl(record(at / "a.jsonl")),
            "quality": {"preset": "gopher"},
            "quality.thresholds.wordz": {"least": 3},
        },
        ("quality.thresholds.wordz", "no such rule"),
    ),
    "bounds that nothing passes": (
        lambda at: {
            **jsonl(record(at / "a.jsonl")),
            "quality": {"preset": "gopher"},
            "quality.thresholds.words": {"least": 3, "most": 2},
        },
        ("quality.thresholds.words", "No document could pass"),
    ),
    "a name that is taken": (
        lambda at: {"targets": [{"name": "space", "path": record(at / "t.jsonl")}]},
        ("target space", "already"),
    ),
    "two targets of one name": (
        lambda at: {"targets": [{"name": "new", "path": record(at / "t.jsonl")}] * 2},
        ("the name new is used more than once",),
    ),
    "a target of an odd name": (
        lambda at: {"targets": [{"name": "a b", "path": record(at / "t.jsonl")}]},
        ("targets.0.name", "letters A to Z"),
    ),
    "a target without files": (
        lambda at: {"targets": [{"name": "new", "path": str(at / "none")}]},
        ("target new", "none"),
    ),
    "a target without the field": (
        lambda at: {"targets": [{"name": "new", "path": file(at / "t.jsonl", '{"body": "x"}\n')}]},
        ("target new", "no_text"),
    ),
    "a target folder of an odd name": (
        lambda at: {"targets_below": str(Path(record(at / "in/it's/t.jsonl")).parents[1])},
        ("targets_below", "it's", "letters A to Z"),
    ),
    "a key of a build": (
        lambda at: {**jsonl(record(at / "a.jsonl")), "held_out_share": 0.5},
        ("held_out_share",),
    ),
}


@pytest.mark.parametrize("case", ADDITIONS)
def test_add_refuses_it(catalog, tmp_path, case):
    make, words = ADDITIONS[case]
    path = file(tmp_path / "more.toml", toml(make(tmp_path)))
    before = listing(tmp_path), listing(catalog)
    refused(words, "add", catalog, path)
    assert (listing(tmp_path), listing(catalog)) == before


@pytest.mark.parametrize("change", ["missing", "damaged", "no encoder"])
def test_add_refuses_a_catalog(catalog, tmp_path, change):
    root, words = tmp_path / "catalog", ("catalog",)
    shutil.copytree(catalog, root, ignore=shutil.ignore_patterns("work"))
    if change == "missing":
        shutil.rmtree(root)
    elif change == "damaged":
        (root / "catalog.json").write_text("{")
    else:
        manifest = json.loads((root / "catalog.json").read_text())
        manifest["config"]["embed"]["model"] = str(tmp_path / "none")
        (root / "catalog.json").write_text(json.dumps(manifest))
        words = ("embed.model", "none")
    path = file(tmp_path / "more.toml", toml(jsonl(record(tmp_path / "a.jsonl"))))
    before = listing(tmp_path)
    refused(words, "add", root, path)
    assert listing(tmp_path) == before


def listing(folder: Path) -> list[tuple[str, int]]:
    """Return every path below a folder with its time of change."""
    return [(str(path), path.stat().st_mtime_ns) for path in sorted(folder.rglob("*"))]


TASK = """
task: colours
dataset_path: json
dataset_kwargs: {data_files: {test: colours.jsonl}}
test_split: test
output_type: multiple_choice
doc_to_text: asked
doc_to_choice: options
doc_to_target: answer
"""
ROW = '{"asked": "Sky?", "options": ["blue", "red"], "answer": 0}\n'


@pytest.fixture
def run(tmp_path):
    """A run that is finished as far as eval can see, whose model cannot be loaded."""
    catalog = add_quiz(write_tiny_catalog(tmp_path / "catalog"), splits=(3, 3, 3))
    (tmp_path / "run" / "model").mkdir(parents=True)
    settings = tiny_run_record()
    settings["config"]["catalog"] = str(catalog)
    file(tmp_path / "run" / "config.json", json.dumps(settings))
    file(tmp_path / "tasks" / "colours.yaml", TASK)
    file(tmp_path / "tasks" / "colours.jsonl", ROW)
    return tmp_path / "run"


TASKS = ("--tasks-from", "TASKS", "--task", "colours")
EVALUATIONS = {  # words of the command, changed files, and what the message says
    "nothing to measure": ((), {}, ("targets",)),
    "no such target": (("--target", "quizz"), {}, ("target quizz",)),
    "a target without questions": (("--target", "spe"), {}, ("target spe", "form")),
    "a task without its folder": (("--task", "colours"), {}, ("task colours", "tasks_from")),
    "a folder without a task": (
        ("--target", "quiz", "--tasks-from", "TASKS"),
        {},
        ("tasks_from",),
    ),
    "no such task": (("--tasks-from", "TASKS", "--task", "sounds"), {}, ("task sounds", "colours")),
    "no such folder": (("--tasks-from", "none", "--task", "colours"), {}, ("task colours", "none")),
    "a limit of nothing": ((*TASKS, "--limit", "0"), {}, ("limit",)),
    "no run": (TASKS, {"run": None}, ("run",)),
    "an unfinished run": (TASKS, {"run/model": None}, ("run", "model")),
    "a damaged record": (TASKS, {"run/config.json": "{"}, ("config.json",)),
    "a damaged task": (TASKS, {"tasks/colours.yaml": "task: ["}, ("colours.yaml",)),
    "a task with code": (TASKS, {"tasks/colours.yaml": f"{TASK}\nclass: x.Y"}, ("x.Y",)),
    "a task without rows": (TASKS, {"tasks/colours.jsonl": "\n"}, ("colours.yaml", "no rows")),
    "a task without data": (TASKS, {"tasks/colours.jsonl": None}, ("colours.yaml",)),
    "a row that is not JSON": (TASKS, {"tasks/colours.jsonl": f"{ROW}x\n"}, ("colours.yaml",)),
    "a row without an answer": (TASKS, {"tasks/colours.jsonl": "{}\n"}, ("colours.yaml",)),
    "half a character": (
        TASKS,
        {"tasks/colours.jsonl": ROW.replace("Sky", r"\ud800")},
        ("colours.yaml", "surrogates"),
    ),
    "no catalog": (("--target", "quiz"), {"catalog/catalog.json": None}, ("catalog",)),
}


@pytest.mark.parametrize("case", EVALUATIONS)
def test_eval_refuses_it(run, tmp_path, case):
    words, changes, said = EVALUATIONS[case]
    for name, content in changes.items():
        path = tmp_path / name
        if content is not None:
            path.write_text(content)
        elif path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    words = [str(tmp_path / "tasks") if word == "TASKS" else word for word in words]
    before = listing(tmp_path)
    refused(said, "eval", run, *words)
    assert listing(tmp_path) == before
