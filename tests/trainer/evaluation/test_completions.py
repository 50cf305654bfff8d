import numpy as np
import torch
from tokenizers import Tokenizer

from tests.helpers.tiny_questions import END, byte_level, question
from trainer.evaluation.completions import tokenize_choices, tokenize_completions
from trainer.evaluation.questions import parse_question

PAIRS = [("one two three:", " four five"), ("six:", " seven")]


def tokens(tokenizer: Tokenizer, text: str) -> list[int]:
    found: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
    return found


def test_labels_are_the_completion_and_its_end_of_text() -> None:
    tokenizer = byte_level([a + b for a, b in PAIRS])
    end = tokenizer.token_to_id(END)
    found = tokenize_completions(tokenizer, PAIRS, 100, end)
    batch = found.read(np.array([1, 0]))
    for row, (prompt, answer) in zip((1, 0), PAIRS, strict=True):
        whole = [*tokens(tokenizer, prompt + answer), end]
        assert batch.inputs[row, : len(whole) - 1].tolist() == whole[:-1]
        labels = batch.labels[row]
        assert labels[labels != -100].tolist() == [*tokens(tokenizer, answer), end]
        assert int(torch.nonzero(labels != -100)[0]) == len(tokens(tokenizer, prompt)) - 1
    assert batch.total == int((batch.labels != -100).sum())
    assert batch.inputs.shape == (2, 64)
    bare = tokenize_completions(tokenizer, PAIRS, 100, None).read(np.array([0]))
    assert int((bare.labels != -100).sum()) == len(tokens(tokenizer, " four five"))


def test_the_beginning_of_long_pairs_is_cut_off() -> None:
    tokenizer = byte_level([])  # a byte a token
    batch = tokenize_completions(
        tokenizer, [("a long prompt:", " yes"), ("p:", " far too long")], 6, None
    ).read(np.array([0, 1]))
    assert [tokenizer.decode(row[row != -100].tolist()) for row in batch.labels] == [
        " yes",
        "o long",
    ]
    assert [tokenizer.decode(row.tolist()) for row in batch.inputs] == ["pt: ye", "oo lon"]
    assert batch.total == int((batch.labels != -100).sum())


def test_a_part_of_a_batch_has_the_divisor_of_the_whole() -> None:
    found = tokenize_completions(byte_level([]), PAIRS, 50, None)
    part = found.read(np.array([0, 1]), slice(1, 2))
    assert (len(part.inputs), part.total) == (1, len(" four five") + len(" seven"))
    assert found.read(np.array([], np.int64)).inputs.shape[0] == 0


def test_rows_of_questions() -> None:
    questions = [
        q for q in (parse_question(question(i), "\nAnswer:") for i in range(3)) if q is not None
    ]
    found = tokenize_choices(byte_level([]), questions, 200)
    assert found.first.tolist() == [0, 2, 5, 9]
    rows, owners, places = found.rows(np.array([2, 0]))
    assert rows.tolist() == [5, 6, 7, 8, 0, 1]
    assert owners.tolist() == [0, 0, 0, 0, 1, 1]
    assert places.tolist() == [0, 1, 2, 3, 0, 1]
    assert found.bytes[:2].tolist() == [len(text) for text in questions[0].completions]
    assert found.right.tolist() == [q.right for q in questions]
