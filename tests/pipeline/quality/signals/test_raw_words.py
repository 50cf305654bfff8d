import numpy as np

from pipeline.quality.signals.characters import read_characters
from pipeline.quality.signals.raw_words import find_raw_words, raw_word_signals


def test_raw_words_are_runs_of_word_characters_or_of_marks():
    characters = read_characters(["don't stop...", "", "  A1_b\t\n", "?!"])
    runs = find_raw_words(characters)
    text = "".join(map(chr, characters.codes))
    assert [text[low:high] for low, high in zip(runs.starts, runs.ends, strict=True)] == [
        "don",
        "'",
        "t",
        "stop",
        "...",
        "A1_b",
        "?!",
    ]
    assert (runs.first.tolist(), runs.last.tolist()) == ([0, 5, 5, 6], [5, 5, 6, 7])


def test_capitals_need_a_letter_and_no_small_or_title_case_one():
    runs = find_raw_words(read_characters(["NASA USa A1 1 ǅA ÉÀ -"]))
    assert raw_word_signals(runs, np.zeros(1, int))["rps_doc_frac_all_caps_words"].tolist() == [
        3 / 7
    ]


def test_sentences_begin_anew_in_every_document():
    texts = ["One. Two?! Three", "no end", "... !", "and again", "Mr. X... (yes)!", ""]
    runs = find_raw_words(read_characters(texts))
    assert raw_word_signals(runs, np.zeros(len(texts), int))["rps_doc_num_sentences"].tolist() == [
        3,
        1,
        0,
        1,
        3,
        0,
    ]


def test_no_raw_words_have_no_shares():
    runs = find_raw_words(read_characters(["", " "]))
    found = raw_word_signals(runs, np.zeros(2, int))
    assert all(np.isnan(found[name]).all() for name in found if name != "rps_doc_num_sentences")
    assert found["rps_doc_num_sentences"].tolist() == [0, 0]
