import json
import os
from pathlib import Path

import datasets
import pytest
from lm_eval.tasks import TaskManager

from data_catalog import UserError
from data_catalog.format.files import open_files
from tests.helpers.tiny_catalog import write_tiny_catalog
from tests.helpers.tiny_questions import add_quiz
from trainer.evaluation.questions import read_questions
from trainer.evaluation.task_files import read_tasks, write_task

ROWS = [
    {"asked": "Sky?", "options": ["blue", "red"], "answer": 0},
    {"asked": "Grass?", "options": ["blue", "green", "grey"], "answer": 1},
]
TASK = """
task: colours
tag: easy
dataset_path: json
dataset_kwargs: {data_files: {validation: colours.jsonl}}
validation_split: validation
output_type: multiple_choice
doc_to_text: "Question: {{asked}}\\nAnswer:"
doc_to_choice: "{{options}}"
doc_to_target: answer
"""


def write(folder: Path, text: str) -> Path:
    (folder / "colours.yaml").write_text(text)
    (folder / "colours.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in ROWS))
    return folder


def test_a_written_task_is_read_as_the_same_questions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalog = add_quiz(write_tiny_catalog(tmp_path / "catalog"))
    name = write_task(open_files(catalog), "quiz", "test", tmp_path / "tasks")
    assert name == "quiz_test"
    expected = read_questions(open_files(catalog), "quiz", "test", "\nAnswer:")
    assert list(read_tasks(tmp_path / "tasks", [name])[0].questions) == expected

    monkeypatch.chdir(tmp_path / "tasks")  # for the harness
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    task = TaskManager(include_path=".", include_defaults=False).load([name])["tasks"][name]
    docs = list(task.test_docs())
    assert [
        (task.doc_to_text(doc), tuple(task.doc_to_choice(doc)), task.doc_to_target(doc))
        for doc in docs
    ] == [(q.prompt, q.completions, q.right) for q in expected]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("", ""),
        ('"{{options}}"', "options"),
        ("doc_to_target: answer", 'doc_to_target: "{{options[answer]}}"'),
        ("doc_to_target: answer", 'doc_to_target: "{{options.index(options[answer])}}"'),
    ],
)
def test_templates_and_columns(tmp_path: Path, old: str, new: str) -> None:
    task = read_tasks(write(tmp_path, TASK.replace(old, new)), ["colours"])[0]
    assert [q.prompt for q in task.questions] == [
        "Question: Sky?\nAnswer:",
        "Question: Grass?\nAnswer:",
    ]
    assert [q.completions for q in task.questions] == [
        (" blue", " red"),
        (" blue", " green", " grey"),
    ]
    assert [q.right for q in task.questions] == [0, 1]


def test_a_list_of_templates(tmp_path: Path) -> None:
    listed = TASK.replace(
        '"{{options}}"', '["{{options[0]}}", green]\ntarget_delimiter: " is "'
    ).replace("answer", '"1"')
    assert [
        q.completions for q in read_tasks(write(tmp_path, listed), ["colours"])[0].questions
    ] == [(" is blue", " is green")] * 2


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "doc_to_target: answer",
            "doc_to_target: !function evil.run",
            "(?s)colours.yaml: .*!function",
        ),
        (
            "doc_to_target: answer",
            "doc_to_target: !!python/object/apply:os.mkdir [HACKED]",
            "(?s)colours.yaml: .*!function",
        ),
        ("{{asked}}", "{{ ''.__class__.__mro__[1].__subclasses__() }}", "SecurityError"),
        ("{{asked}}", "{{ cycler.__init__.__globals__.os.mkdir('HACKED') }}", "SecurityError"),
        ("{{asked}}", "{{ nosuch }}", "UndefinedError"),
        ("tag: easy", "class: evil.Task", "class: 'evil.Task'"),
        ("tag: easy", "process_docs: evil", "process_docs: 'evil'"),
        ("tag: easy", "include: other.yaml", "include: 'other.yaml'"),
        ("tag: easy", "num_fewshot: 5", "num_fewshot: 5"),
        (
            "dataset_path: json",
            "dataset_path: allenai/ai2_arc",
            "dataset_path: 'allenai/ai2_arc'",
        ),
        ("output_type: multiple_choice", "", "output_type"),
        ("colours.jsonl", "nosuch.jsonl", "FileNotFoundError"),
        ("doc_to_target: answer", "doc_to_target: asked", "ValueError"),
        ("doc_to_target: answer", 'doc_to_target: "7"', "right choice is 7"),
        ("task: colours", "[", "yaml: "),
    ],
)
def test_unsupported_task_files_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old: str, new: str, message: str
) -> None:
    assert old in TASK
    (tmp_path / "evil.py").write_text(
        "import os\nos.mkdir('HACKED')\ndef run(doc): os.mkdir('HACKED')\n"
    )
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message):
        read_tasks(write(tmp_path, TASK.replace(old, new)), ["colours"])
    assert "HACKED" not in os.listdir(tmp_path)


def test_an_unknown_task_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"task sounds: .* colours"):
        read_tasks(write(tmp_path, TASK), ["sounds"])
