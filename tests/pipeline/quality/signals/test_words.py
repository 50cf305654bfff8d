import numpy as np

from pipeline.grams import normalise
from pipeline.quality.signals.words import read_words, word_signals


def words_of(*texts):
    return read_words(texts, [normalise(text) for text in texts])


def test_normalised_text_has_no_marks_no_capitals_and_no_composed_letters():
    assert normalise("Don't  É-x_y\n“Ok”") == "dont  e\u0301xy\n“ok”"
    assert normalise("ΟΔΟΣ İ") == "οδος i\u0307"  # a final sigma, and two code points of one


def test_ids_are_of_one_document_and_lengths_in_code_points():
    words = words_of("a bé a", "a", "")
    assert words.owner.tolist() == [0, 0, 0, 1]
    first, second, again, other = words.ids.tolist()
    assert first == again
    assert len({first, second, other}) == 3
    assert words.lengths.tolist() == [1, 3, 1, 1]
    assert (words.first.tolist(), words.last.tolist()) == ([0, 3, 4], [3, 4, 4])
    assert words.text_lengths.tolist() == [7, 1, 0]


def test_a_line_of_marks_only_is_a_line_and_a_final_newline_begins_none():
    assert words_of("a b\n...", "c\n", "\n\n", "").line_ends.tolist() == [2, 2, 3, 3, 3]


def test_occurrences_are_of_whole_words():
    assert words_of("JavaScript, javascript! javascripts", "java script").occurrences(
        "javascript"
    ).tolist() == [2, 0]
    assert words_of("java").occurrences("javascript").tolist() == [0]


def test_word_signals():
    found = word_signals(words_of("a a bb bb", "", "x"))
    assert found["rps_doc_word_count"].tolist() == [4, 0, 1]
    np.testing.assert_array_equal(found["rps_doc_mean_word_length"], [1.5, np.nan, 1])
    np.testing.assert_array_equal(found["rps_doc_frac_unique_words"], [0.5, np.nan, 1])
    np.testing.assert_allclose(found["rps_doc_unigram_entropy"], [np.log(2), np.nan, 0], atol=1e-15)
