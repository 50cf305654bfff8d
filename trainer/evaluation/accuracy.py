"""Accuracy of an exported model on multiple-choice questions.

It is measured by lm-evaluation-harness, from local files only.
"""

import logging
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import replace
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from data_catalog.errors import UserError
from data_catalog.format.files import open_files
from data_catalog.format.manifest import write_json
from data_catalog.format.run_files import require_run_files
from data_catalog.format.run_record import read_run_record
from data_catalog.place import parse_folder
from data_catalog.transfer.mirror import local_folder
from trainer.evaluation.questions import Question
from trainer.evaluation.task_files import TaskFile, read_tasks, write_task

# Share of questions whose right choice has the highest log-likelihood, plain and per byte of UTF-8.
METRICS = ("acc", "acc_bytes")


def evaluate_run(
    run: Path,
    targets: Sequence[str] = (),
    tasks: Sequence[str] = (),
    tasks_from: Path | None = None,
    *,
    limit: int | None = None,
    device: str | None = None,
    batch_sequences: int = 16,
) -> dict[str, Any]:
    """Measure the accuracy of a finished run's model, write `run/accuracy.json` and return it.

    Args:
        run: folder of the run.
        targets: targets of the run's catalog. The questions of their test splits are written to
            `run/tasks/`.
        tasks: names of tasks in the folder `tasks_from`.
        tasks_from: folder of task files, as `trainer.evaluation.task_files` describes.
        limit: maximum number of questions per task, from the first. None: all.
        device: "cpu" or "cuda". None: a GPU if there is one.
        batch_sequences: number of sequences per batch.

    Returns:
        The result of `accuracy`.

    Raises:
        DamagedFileError: A file of the model differs from its checksum.
        UserError: There are no targets and no tasks, the run is not finished, a target or task is
            missing or invalid, `limit` is below 1, or the harness is not installed.
    """
    if not targets and not tasks:
        raise UserError(
            "targets: No target and no task is given. Expected at least one. Name a target of the "
            "run's catalog, or a task and the folder of its file."
        )
    if tasks and tasks_from is None:
        raise UserError(f"task {tasks[0]}: The folder of its file is missing. Set tasks_from.")
    if tasks_from and not tasks:
        raise UserError(f"tasks_from {tasks_from}: No task of this folder is named. Name tasks.")
    if limit is not None and limit < 1:
        raise UserError(f"limit {limit}: Expected at least 1 question.")
    _check_harness()
    if not (run / "model").is_dir():
        raise UserError(f"{run}: The model is missing. Wait until the run is finished.")
    require_run_files(run, ["model/"])
    config = read_run_record(run).config
    marker, catalog = config.mixture.answer_after, parse_folder(config.catalog)
    written = [
        write_task(open_files(local_folder(catalog)), target, "test", run / "tasks", marker)
        for target in targets
    ]
    task_files = read_tasks(run / "tasks", written)
    if tasks_from:
        task_files += read_tasks(tasks_from, tasks)
    result = accuracy(
        run / "model", task_files, limit=limit, device=device, batch_sequences=batch_sequences
    )
    write_json(run / "accuracy.json", result)
    return result


def accuracy(
    model: Path,
    tasks: Sequence[TaskFile],
    *,
    limit: int | None = None,
    device: str | None = None,
    batch_sequences: int = 16,
) -> dict[str, Any]:
    """Return the accuracy of a model on each task.

    Prompts are encoded without a leading special token, like the documents of the catalog. The
    beginning of a prompt that is too long is cut off.

    Args:
        model: Hugging Face folder of the model.
        tasks: the tasks.
        limit: maximum number of questions per task, from the first. None: all.
        device: "cpu" or "cuda". None: a GPU if there is one.
        batch_sequences: number of sequences per batch.

    Returns:
        The settings, the versions and the results by task. The results are the number of questions,
        the number of those left out because a choice is longer than the model's context, the
        accuracy of a random choice, and `acc` and `acc_bytes` with their standard errors.

    Raises:
        UserError: The harness is not installed, or no question of a task fits the model.
    """
    _check_harness()
    from lm_eval import simple_evaluate  # noqa: PLC0415 - slow, and in an optional extra
    from lm_eval.models.huggingface import HFLM  # noqa: PLC0415
    from lm_eval.tasks import TaskManager  # noqa: PLC0415

    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    with redirect_stdout(sys.stderr):  # The harness prints its progress bars there.
        language_model = HFLM(
            pretrained=str(model),
            device=device or _device(),
            batch_size=batch_sequences,
            add_bos_token=False,
        )
        fitting = [_fitting(task, limit, language_model) for task in tasks]
        results = simple_evaluate(
            model=language_model,
            tasks=[_config(task) for task in fitting],
            task_manager=TaskManager(include_defaults=False),  # The default tasks need the hub.
            log_samples=False,
            random_seed=None,
            numpy_random_seed=None,
            torch_random_seed=None,
        )
    return {
        "model": str(model),
        "limit": limit,
        "versions": {name: version(name) for name in ("lm_eval", "torch", "transformers")},
        "tasks": {
            fit.name: {
                **_result(fit, results["results"][fit.name]),
                "left_out": len(task.questions[:limit]) - len(fit.questions),
            }
            for task, fit in zip(tasks, fitting, strict=True)
        },
    }


def _check_harness() -> None:
    if find_spec("lm_eval") is None:
        raise UserError(
            "lm-evaluation-harness is not installed. Accuracy is measured with it. "
            "Run: pip install 'clustermix[eval]'"
        )


def _fitting(task: TaskFile, limit: int | None, language_model: Any) -> TaskFile:
    """Return the task with its first `limit` questions that fit the model's context.

    The harness would stop at a choice that is longer than the context.
    """

    def longest(question: Question) -> int:
        prompt = len(language_model.tok_encode(question.prompt))
        return max(
            len(language_model.tok_encode(question.prompt + choice)) - prompt
            for choice in question.completions
        )

    questions = tuple(
        question
        for question in task.questions[:limit]
        if longest(question) <= language_model.max_length
    )
    if not questions:
        raise UserError(
            f"task {task.name}: Every question has a choice that is longer than the model's "
            f"{language_model.max_length} tokens. Use a model with a longer context."
        )
    return replace(task, questions=questions)


def _device() -> str:
    import torch  # noqa: PLC0415 - the harness has imported it already

    return "cuda" if torch.cuda.is_available() else "cpu"


def _config(task: TaskFile) -> dict[str, Any]:
    """Return the harness's config of a task, including its data.

    The harness loads no file, renders no template and runs no code for it.
    """
    from datasets import Dataset  # noqa: PLC0415 - installed with the harness

    rows = [
        {"prompt": q.prompt, "choices": list(q.completions), "right": q.right}
        for q in task.questions
    ]
    return {
        "task": task.name,
        "custom_dataset": lambda **_: {"test": Dataset.from_list(rows)},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "prompt",
        "doc_to_choice": "choices",
        "doc_to_target": "right",
        "target_delimiter": "",
        "metric_list": [
            {"metric": metric, "aggregation": "mean", "higher_is_better": True}
            for metric in METRICS
        ],
    }


def _result(task: TaskFile, result: dict[str, Any]) -> dict[str, float | int]:
    questions = task.questions
    values = {
        name: result[f"{name},none"] for metric in METRICS for name in (metric, f"{metric}_stderr")
    }
    return {
        "questions": len(questions),
        "chance": sum(1 / len(q.completions) for q in questions) / len(questions),
        **values,
    }
