"""Multiple-choice questions in a target's texts: a question, lettered choices and the answer."""

import logging
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

import pyarrow.compute as pc

from data_catalog.errors import UserError
from data_catalog.format import tables
from data_catalog.format.damage import require
from data_catalog.format.files import CatalogFiles
from data_catalog.format.tokens import open_target

LETTER = re.compile(r"^([A-Z])[.)]\s+", re.MULTILINE)  # "A. " or "A) " at the start of a line

_Parsed = TypeVar("_Parsed")
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Question:
    """A multiple-choice question."""

    prompt: str
    """Text up to and including the marker."""
    completions: tuple[str, ...]
    """Text of each choice, with its leading blanks, in the form of the document's answer."""
    right: int
    """Number of the right choice, from 0."""


def parse_question(text: str, marker: str) -> Question | None:
    """Return the question in `text`, or None if it does not have the form of one.

    The answer follows the last `marker`. It is a choice as written in the list ("B. red"), its
    letter, or its words. The choices are the last run A, B, C, ... of two or more. Lines that start
    with another letter belong to the previous choice.

    Args:
        text: the text of a document.
        marker: text that precedes the answer.
    """
    head, separator, tail = text.rpartition(marker)
    answer, choices = tail.strip(), _choices(head)
    blanks = tail[: len(tail) - len(tail.lstrip())]
    for form in zip(*choices, strict=True):
        if separator and form.count(answer) == 1:
            return Question(
                head + marker, tuple(blanks + completion for completion in form), form.index(answer)
            )
    return None


def split_answer(text: str, marker: str) -> tuple[str, str] | None:
    """Return the prompt including the last `marker`, and the answer, or None if one is missing."""
    head, separator, answer = text.rpartition(marker)
    return (head + marker, answer) if separator and answer.strip() else None


def read_questions(files: CatalogFiles, target: str, split: str, marker: str) -> list[Question]:
    """Return the questions of a target's split, in the order of its documents.

    The number of documents that are not questions is logged.

    Args:
        files: the open catalog.
        target: name of the target.
        split: name of the split.
        marker: text that precedes the answer.

    Raises:
        UserError: There is no such target or split, or none of its documents is a question.
    """
    form = repr(f"Question?\nA. one choice\nB. another{marker} B. another")
    return _read(files, target, split, lambda text: parse_question(text, marker), form)


def read_answers(
    files: CatalogFiles, target: str, split: str, marker: str
) -> list[tuple[str, str]]:
    """Return the prompt and the answer of each document of a split.

    The arguments and errors are those of `read_questions`.
    """
    return _read(
        files,
        target,
        split,
        lambda text: split_answer(text, marker),
        repr(f"Question?{marker} the answer"),
    )


def _read(
    files: CatalogFiles, target: str, split: str, parse: Callable[[str], _Parsed | None], form: str
) -> list[_Parsed]:
    open_target(files, target, split)  # raises an error if the target or the split is missing
    documents = files.layout.target(target) / "documents.parquet"
    table = files.read_table(documents, tables.TARGET, ["text", "split"])
    texts: list[str] = table.filter(pc.equal(table["split"], split))["text"].to_pylist()
    require(documents, None not in texts, "a text is missing")
    parsed = [result for result in map(parse, texts) if result is not None]
    skipped = len(texts) - len(parsed)
    if not parsed:
        raise UserError(
            f"target {target}: None of the {skipped} documents of its {split} split has the form "
            f"{form}. The first starts with {texts[0][:60]!r}. Use such documents, or set "
            "mixture.answer_after to the text before their answers."
        )
    if skipped:
        logger.warning(
            "target %s: %d of %d documents of its %s split are skipped. Expected the form %s.",
            target,
            skipped,
            len(texts),
            split,
            form,
        )
    return parsed


def _choices(head: str) -> Iterable[tuple[str, str, str]]:
    """Return each choice as written, its letter and its words.

    The result is empty if there are fewer than two choices.
    """
    places = list(LETTER.finditer(head))
    for first in range(len(places) - 1, -1, -1):
        run = _run(places[first:])
        if len(run) > 1:
            ends = [*(place.start() for place in run[1:]), len(head)]
            return [
                (head[place.start() : end].strip(), place[1], head[place.end() : end].strip())
                for place, end in zip(run, ends, strict=True)
            ]
    return ()


def _run(places: list[re.Match[str]]) -> list[re.Match[str]]:
    """Return the longest run A, B, C, ... among `places`, in their order."""
    run: list[re.Match[str]] = []
    for place in places:
        if place[1] == chr(ord("A") + len(run)):
            run.append(place)
    return run
