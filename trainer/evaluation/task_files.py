"""Multiple-choice tasks in files.

The files are a subset of the YAML of lm-evaluation-harness. The data is in a file in the same
folder, one JSON object per line. For example:

    task: colours
    dataset_path: json
    dataset_kwargs: {data_files: {test: colours.jsonl}}
    test_split: test
    output_type: multiple_choice
    doc_to_text: "Question: {{question}}\\nAnswer:"
    doc_to_choice: "{{options}}"
    doc_to_target: answer
    target_delimiter: " "

The path of the data is relative to the task file. `validation_split` can replace `test_split`.
`doc_to_text`, `doc_to_choice` and `doc_to_target` are columns or Jinja templates. `doc_to_choice`
can also be a list of them. `doc_to_target` gives the number of the right choice, from 0, or its
text. `target_delimiter` separates the prompt from the choice; its default is a blank.

Task files are untrusted. The harness would run the Python code that a `!function` tag names, and
render templates without a sandbox. Therefore this module reads the files with a parser for plain
values only, renders templates in Jinja's sandbox and passes only the results to the harness.
"""

import ast
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from jinja2 import StrictUndefined, TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from data_catalog.errors import UserError
from data_catalog.format.files import CatalogFiles
from data_catalog.temporary import replacing
from trainer.evaluation.questions import Question, read_questions

_SUPPORTED_KEYS = (
    "doc_to_text",
    "doc_to_choice",
    "doc_to_target",
    "test_split",
    "validation_split",
    "dataset_kwargs",
    "target_delimiter",
)
_REQUIRED_VALUES = {"dataset_path": "json", "output_type": "multiple_choice", "num_fewshot": 0}
_IGNORED_KEYS = (
    "task",
    "tag",
    "metadata",
    "metric_list",
    "training_split",
    "should_decontaminate",
    "doc_to_decontamination_query",
)


@dataclass(frozen=True)
class TaskFile:
    """A task that was read from a file."""

    name: str
    questions: tuple[Question, ...]
    """The questions, whose completions start with the delimiter."""


def write_task(
    files: CatalogFiles, target: str, split: str, folder: Path, marker: str = "\nAnswer:"
) -> str:
    """Write the questions of a target's split as `folder/TARGET_SPLIT.yaml` and `.jsonl`.

    The harness can read these files:
    `cd FOLDER && lm_eval --include_path . --tasks TARGET_SPLIT ...`.

    Args:
        files: the open catalog.
        target: name of the target.
        split: name of the split.
        folder: folder of the task files.
        marker: text that precedes the answer.

    Returns:
        The name of the task.

    Raises:
        UserError: The target or the split is missing, or it has no question with lettered choices.
    """
    name = f"{target}_{split}"
    lines = [
        json.dumps({"prompt": q.prompt, "choices": q.completions, "right": q.right})
        for q in read_questions(files, target, split, marker)
    ]
    task = {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": f"{name}.jsonl"}},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "prompt",
        "doc_to_choice": "choices",
        "doc_to_target": "right",
        "target_delimiter": "",
        "metric_list": [
            {"metric": metric, "aggregation": "mean", "higher_is_better": True}
            for metric in ("acc", "acc_bytes")
        ],
        "metadata": {"version": 1},
    }
    for ending, text in (
        (".jsonl", "".join(f"{line}\n" for line in lines)),
        (".yaml", yaml.safe_dump(task, sort_keys=False)),
    ):
        with replacing(folder / (name + ending)) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return name


def read_tasks(folder: Path, names: Sequence[str]) -> list[TaskFile]:
    """Return the tasks called `names` from the task files of `folder`.

    Args:
        folder: folder of the task files.
        names: names of the tasks.

    Raises:
        UserError: A task is missing, or its file is invalid.
    """
    tasks = {
        str(task.get("task")): (path, task)
        for path in sorted(folder.glob("*.yaml"))
        for task in [_load(path)]
    }
    for name in names:
        if name not in tasks:
            raise UserError(
                f"task {name}: There is no such task in {folder}. "
                f"Expected one of: {', '.join(tasks) or 'none'}. Correct the name or the folder."
            )
    return [_read(*tasks[name]) for name in names]


def _load(path: Path) -> dict[str, Any]:
    try:
        task = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(
            f"{path}: The file cannot be read ({error}). Expected YAML with plain values. "
            "Tags such as !function are never run."
        ) from error
    if not isinstance(task, dict):
        raise UserError(
            f"{path}: This is not a task file. Expected the keys "
            f"{', '.join(('task', *_SUPPORTED_KEYS[:3]))}."
        )
    return task


def _read(path: Path, task: dict[str, Any]) -> TaskFile:
    for key, value in task.items():
        if key not in (*_SUPPORTED_KEYS, *_IGNORED_KEYS) and value != _REQUIRED_VALUES.get(key):
            known = ", ".join(
                (
                    *_SUPPORTED_KEYS,
                    *(f"{name}: {fixed}" for name, fixed in _REQUIRED_VALUES.items()),
                )
            )
            raise UserError(
                f"{path}: {key}: {value!r} is not supported. Prepare the text in the data. "
                f"Supported keys: {known}."
            )
    missing = [
        key
        for key in (*_SUPPORTED_KEYS[:3], "dataset_kwargs", "dataset_path", "output_type")
        if key not in task
    ]
    if missing:
        raise UserError(f"{path}: Required keys are missing: {', '.join(missing)}. Add them.")
    try:
        rows = [
            json.loads(line)
            for line in _data(path, task).read_text(encoding="utf-8-sig").splitlines()
            if line.strip()
        ]
        questions = tuple(_question(task, row) for row in rows)
    except (
        OSError,
        TypeError,
        ValueError,
        SyntaxError,
        KeyError,
        IndexError,
        TemplateError,
    ) as error:
        raise UserError(
            f"{path}: The questions cannot be rendered ({type(error).__name__}: {error})."
        ) from error
    if not questions:
        raise UserError(f"{path}: The data of the task has no rows. Add questions.")
    return TaskFile(str(task["task"]), questions)


def _data(path: Path, task: Mapping[str, Any]) -> Path:
    files = task["dataset_kwargs"]["data_files"]
    split = task.get("test_split") or task.get("validation_split")
    file = Path(files[split] if isinstance(files, dict) else files)
    return file if file.is_absolute() else path.parent / file


def _question(task: Mapping[str, Any], row: Mapping[str, Any]) -> Question:
    """Return the question of a row.

    As in the harness, the name of a column is replaced by its value. Other texts are templates.
    """
    choices, right = task["doc_to_choice"], _value(task["doc_to_target"], row)
    values = (
        [_value(choice, row) for choice in choices]
        if isinstance(choices, list)
        else _value(choices, row)
    )
    texts = [
        str(text) for text in (ast.literal_eval(values) if isinstance(values, str) else values)
    ]
    number = int(right) if str(right).isdecimal() else texts.index(str(right))
    if not 0 <= number < len(texts):
        raise ValueError(f"the right choice is {number}, expected 0 to {len(texts) - 1}")
    delimiter, prompt = task.get("target_delimiter", " "), str(_value(task["doc_to_text"], row))
    for text in (prompt, *texts):
        text.encode()  # raises UnicodeEncodeError, a ValueError, for lone surrogates
    return Question(prompt, tuple(delimiter + text for text in texts), number)


def _value(template: Any, row: Mapping[str, Any]) -> Any:
    if not isinstance(template, str):
        return template
    if template in row:
        return row[template]
    sandbox = ImmutableSandboxedEnvironment(undefined=StrictUndefined, keep_trailing_newline=True)
    return sandbox.from_string(template).render(**row)
