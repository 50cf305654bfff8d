"""Multiple-choice questions in a target's texts: a question, lettered choices and the answer."""

import logging
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

import pyarrow.parquet as pq

from data_catalog.errors import UserError
from data_catalog.format.files import CatalogFiles
from data_catalog.format.tokens import open_target

LETTER = re.compile(r"^([A-Z])[.)]\s+", re.MULTILINE)  # "A. " or "A) " where a line begins

Found = TypeVar("Found")
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Question:
    """A multiple-choice question."""

    prompt: str  # all up to the marker, and the marker
    completions: tuple[
        str, ...
    ]  # what may follow it, blanks included: one a choice, in the form of the document's own answer
    right: int  # which of them does


def parse_question(text: str, marker: str) -> Question | None:
    """Return the question in `text`, or None if it does not have the form of one.

    The answer follows the last `marker`: a choice as written in the list ("B. red"), its letter, or
    its words. The choices are the last run A, B, C, ... of two or more. Lines that start with another
    letter belong to the previous choice.
    """
    head, found, tail = text.rpartition(marker)
    answer, choices = tail.strip(), _choices(head)
    blanks = tail[: len(tail) - len(tail.lstrip())]
    for form in zip(*choices, strict=True):
        if found and form.count(answer) == 1:
            return Question(
                head + marker, tuple(blanks + completion for completion in form), form.index(answer)
            )
    return None


def split_answer(text: str, marker: str) -> tuple[str, str] | None:
    """Return the prompt including the last `marker`, and the answer; None if one is missing."""
    head, found, answer = text.rpartition(marker)
    return (head + marker, answer) if found and answer.strip() else None


def read_questions(files: CatalogFiles, target: str, split: str, marker: str) -> list[Question]:
    """The questions of a target's split, in the order of its documents; how many documents are none is logged.

    Raises:
        UserError: there is no such target or split, or none of its documents is a question; the form of one is then shown.
    """
    form = repr(f"Question?\nA. one choice\nB. another{marker} B. another")
    return _read(files, target, split, lambda text: parse_question(text, marker), form)


def read_answers(
    files: CatalogFiles, target: str, split: str, marker: str
) -> list[tuple[str, str]]:
    """Return `split_answer` of each document of a split; for errors see `read_questions`."""
    return _read(
        files,
        target,
        split,
        lambda text: split_answer(text, marker),
        repr(f"Question?{marker} the answer"),
    )


def _read(
    files: CatalogFiles, target: str, split: str, parse: Callable[[str], Found | None], form: str
) -> list[Found]:
    open_target(files, target, split)  # refuses a target or a split that is not there
    table = pq.read_table(
        files.layout.target(target) / "documents.parquet",
        columns=["text"],
        filters=[("split", "=", split)],
    )
    texts: list[str] = table["text"].to_pylist()
    found = [thing for thing in map(parse, texts) if thing is not None]
    unfit = len(texts) - len(found)
    if not found:
        raise UserError(
            f"target {target}: None of the {unfit} documents of its {split} split has the form "
            f"{form}. The first starts with {texts[0][:60]!r}. Use such documents, or set "
            "mixture.answer_after to the text before their answers."
        )
    if unfit:
        logger.warning(
            "target %s: %d of %d documents of its %s split are skipped. Expected the form %s.",
            target,
            unfit,
            len(texts),
            split,
            form,
        )
    return found


def _choices(head: str) -> Iterable[tuple[str, str, str]]:
    """Return each choice as written, its letter and its words; nothing if there are fewer than two."""
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
