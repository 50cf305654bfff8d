import numpy as np
import pytest

from pipeline.grams import normalise
from pipeline.quality.signals.by_line import line_signals
from pipeline.quality.signals.characters import read_characters
from pipeline.quality.signals.raw_words import find_raw_words
from pipeline.quality.signals.words import read_words


def signals(*texts):
    characters = read_characters(texts)
    words = read_words(texts, [normalise(text) for text in texts])
    found = line_signals(characters, find_raw_words(characters), words)
    return {name.split("_", maxsplit=2)[-1]: values.tolist() for name, values in found.items()}


def test_lines_end_with_newlines_and_a_text_can_end_with_one():
    found = signals("a\nb", "a\n", "\n\n", "", " \n")
    assert found["nlines"] == [2, 1, 2, 0, 1]
    assert found["length"] == [3, 2, 2, 0, 2]
    assert np.isnan(found["num_words"][3])


@pytest.mark.parametrize(
    ("line", "ellipsis", "terminal"),
    [
        ("so...  ", 1, 1),
        ("so…", 1, 0),
        ("so..", 0, 1),
        ("?...", 1, 1),
        ('"so."', 0, 0),
        ("“so.”", 0, 1),
        ("...\t", 1, 1),
        (" ", 0, 0),
    ],
)
def test_how_a_line_ends(line, ellipsis, terminal):
    found = signals(".", f"{line}\nx", "..")
    assert found["frac_lines_end_with_ellipsis"] == [0, ellipsis / 2, 0]
    assert found["ending_with_terminal_punctution_mark"] == [1, terminal / 2, 1]


def test_two_dots_at_a_line_end_and_one_before_it_are_no_ellipsis():
    assert signals("..", ".\n..")["frac_lines_end_with_ellipsis"] == [0, 0]


@pytest.mark.parametrize(
    ("line", "bullet"),
    [("• a", 1), (" \t– a", 1), ("- a", 0), ("* a", 0), ("a •", 0), ("▪", 1), ("\t", 0)],
)
def test_how_a_line_begins(line, bullet):
    assert signals("x", f"y\n{line}")["start_with_bulletpoint"] == [0, bullet / 2]


def test_numerals_are_of_the_normalised_line_and_capitals_of_the_raw_one():
    found = signals("A-1, 2½\nxyz", "AB\n")
    assert found["numerical_chars_fraction"] == [0.6 / 2, 0]  # "a1 2½": 3 of 5
    assert found["uppercase_letter_fraction"] == [0.125 / 2, 0.66666667]  # the newline counts
    assert found["num_words"] == [1.5, 1]


def test_javascript_counts_as_a_word():
    assert signals("JavaScript javascript\n\nuse JavaScripts\nx")["javascript_counts"] == [0.5]
