"""Accuracy of an exported model on multiple-choice questions, by lm-evaluation-harness, from local files alone."""

import logging
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from data_catalog.errors import UserError
from data_catalog.format.files import open_files
from data_catalog.format.manifest import write_json
from data_catalog.format.run_record import read_run_record
from trainer.evaluation.questions import Question
from trainer.evaluation.task_files import TaskFile, read_tasks, write_task

METRICS = (
    "acc",
    "acc_bytes",
)  # the likeliest choice is right: by log-likelihood, and by log-likelihood over bytes of UTF-8


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
    """Measure the model of a finished run; write `run/accuracy.json` and return what it holds.

    Args:
        targets: of the run's catalog; the questions of their test splits are written to `run/tasks/`.
        tasks: names of tasks in the folder `tasks_from`; for the form of its files see `trainer.evaluation.task_files`.
        limit: most questions of a task, the first ones; None: all.
        device: "cpu", "cuda"; None: a GPU if there is one.

    Raises:
        UserError: nothing is asked for, the run is not finished, a target or task is missing or has not the right form, or the harness
            is not installed.
    """
    if not targets and not tasks:
        raise UserError(
            "targets: No target and no task is given. Name a target of the run's catalog, or a task and "
            "the folder of its file."
        )
    if tasks and tasks_from is None:
        raise UserError(f"task {tasks[0]}: The folder of its file is missing. Set tasks_from.")
    if not (run / "model").is_dir():
        raise UserError(f"{run}: The model is missing. Wait until the run is finished.")
    config = read_run_record(run).config
    marker, catalog = config.mixture.answer_after, Path(config.catalog)
    written = [
        write_task(open_files(catalog), target, "test", run / "tasks", marker) for target in targets
    ]
    read = read_tasks(run / "tasks", written) + (
        read_tasks(tasks_from, tasks) if tasks_from else []
    )
    found = accuracy(
        run / "model", read, limit=limit, device=device, batch_sequences=batch_sequences
    )
    write_json(run / "accuracy.json", found)
    return found


def accuracy(
    model: Path,
    tasks: Sequence[TaskFile],
    *,
    limit: int | None = None,
    device: str | None = None,
    batch_sequences: int = 16,
) -> dict[str, Any]:
    """The accuracy on each task of the model in a Hugging Face folder.

    A prompt is encoded without a leading special token, as the catalog's documents are, and loses its beginning where it is too long.

    Returns:
        Settings and versions; and by task the number of questions, and of those left out because a choice is longer than the model's
        window; the accuracy of a random choice, `acc` and `acc_bytes`, and the standard error of each.

    Raises:
        UserError: the harness is not installed, or no question of a task fits the model.
    """
    try:
        from lm_eval import simple_evaluate  # noqa: PLC0415 - seconds, and an extra of its own
        from lm_eval.models.huggingface import HFLM  # noqa: PLC0415
        from lm_eval.tasks import TaskManager  # noqa: PLC0415
    except ImportError as error:
        raise UserError(
            "lm-evaluation-harness is not installed. Accuracy is measured with it. "
            "Run: pip install 'clustermix[eval]'"
        ) from error
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    with redirect_stdout(sys.stderr):  # where its progress bars are
        language_model = HFLM(
            pretrained=str(model),
            device=device or _device(),
            batch_size=batch_sequences,
            add_bos_token=False,
        )
        asked = [_fitting(task, limit, language_model) for task in tasks]
        results = simple_evaluate(
            model=language_model,
            tasks=[_config(task) for task in asked],
            task_manager=TaskManager(include_defaults=False),  # theirs are on the hub
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
            for task, fit in zip(tasks, asked, strict=True)
        },
    }


def _fitting(task: TaskFile, limit: int | None, language_model: Any) -> TaskFile:
    """The first `limit` questions, less those with a choice that is longer than the model's window: the harness would stop at one."""

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
    import torch  # noqa: PLC0415 - the harness has it anyway

    return "cuda" if torch.cuda.is_available() else "cpu"


def _config(task: TaskFile) -> dict[str, Any]:
    """The task as the harness knows it, with its data at hand: nothing is loaded, rendered or called."""
    from datasets import Dataset  # noqa: PLC0415 - comes with the harness

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


def _result(task: TaskFile, found: dict[str, Any]) -> dict[str, float | int]:
    asked = task.questions
    values = {
        name: found[f"{name},none"] for metric in METRICS for name in (metric, f"{metric}_stderr")
    }
    return {
        "questions": len(asked),
        "chance": sum(1 / len(q.completions) for q in asked) / len(asked),
        **values,
    }
