from pathlib import Path

import pytest

from data_catalog import UserError
from data_catalog.format.files import open_files
from tests.helpers.tiny_catalog import write_tiny_catalog
from tests.helpers.tiny_questions import add_quiz, question
from trainer.evaluation.questions import (
    Question,
    parse_question,
    read_answers,
    read_questions,
    split_answer,
)

MARKER = "\nAnswer:"
HEAD = "Which?\nA. 0\nB. 1\nC. 0,1"


def test_all_completions_have_the_form_of_the_answer() -> None:
    prompt = HEAD + MARKER
    assert parse_question(f"{HEAD}{MARKER} B. 1", MARKER) == Question(
        prompt, (" A. 0", " B. 1", " C. 0,1"), 1
    )
    assert parse_question(f"{HEAD}{MARKER} C\n", MARKER) == Question(prompt, (" A", " B", " C"), 2)
    assert parse_question(f"{HEAD}{MARKER}0", MARKER) == Question(prompt, ("0", "1", "0,1"), 0)


@pytest.mark.parametrize(
    "text",
    [
        f"{HEAD}\nB. 1",  # no marker
        f"{HEAD}{MARKER} B. 0",  # none of the choices
        f"{HEAD}{MARKER} D",
        f"Which?\nA. 1\nB. 1{MARKER} 1",  # two of them
        f"Which?\nA. only one{MARKER} A",
        f"Which? A. 0 B. 1{MARKER} A",  # not at the beginning of lines
        f"{HEAD}{MARKER}",
    ],
)
def test_texts_that_are_not_questions(text: str) -> None:
    assert parse_question(text, MARKER) is None


def test_lines_that_start_with_another_letter_belong_to_the_previous_choice() -> None:
    text = (
        "A. is a letter.\nI. one\nII. two\nWhich?\nA) I only\nof them\nC) is not the next\n"
        f"B) I and II\nAnswer: none{MARKER} A"
    )
    found = parse_question(text, MARKER)
    assert found is not None
    assert found.completions == (" A", " B")
    assert found.prompt.endswith("Answer: none\nAnswer:")
    in_words = parse_question(
        text[: -len(" A")] + " A) I only\nof them\nC) is not the next", MARKER
    )
    assert in_words is not None
    assert in_words.completions[0] == " A) I only\nof them\nC) is not the next"


def test_the_answer_follows_the_last_marker() -> None:
    assert split_answer("a\nAnswer: b\nAnswer: c", MARKER) == ("a\nAnswer: b\nAnswer:", " c")
    assert split_answer("a", MARKER) is None
    assert split_answer("a\nAnswer: \n", MARKER) is None


def test_documents_that_are_not_questions_are_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    catalog = add_quiz(write_tiny_catalog(tmp_path / "catalog"))
    found = read_questions(open_files(catalog), "quiz", "validation", MARKER)
    assert [q.prompt + q.completions[q.right] for q in found] == [
        question(i) for i in range(10, 17)
    ]
    assert "1 of 8 documents of its validation split" in caplog.text
    assert (
        len(read_answers(open_files(catalog), "quiz", "validation", MARKER)) == 8
    )  # it has an answer


def test_a_target_without_questions_is_refused_with_their_form(tmp_path: Path) -> None:
    catalog = write_tiny_catalog(tmp_path / "catalog")
    with pytest.raises(
        UserError,
        match=r"8 documents of its align split .*'Question\?\\nA\. one choice",
    ):
        read_questions(open_files(catalog), "spe", "align", MARKER)
    with pytest.raises(UserError, match="Its targets: spe, other"):
        read_questions(open_files(catalog), "quiz", "align", MARKER)
