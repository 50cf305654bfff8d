from pipeline.quality.signals.ngrams import repetition_signals
from pipeline.quality.signals.words import read_words


def signals(*texts):
    return {
        name.removeprefix("rps_doc_frac_chars_"): values.tolist()
        for name, values in repetition_signals(read_words(texts, texts)).items()
    }


def test_of_equally_frequent_ngrams_the_first_counts():
    found = signals("a b ccc ddd a b ccc ddd", "ccc ddd a b ccc ddd a b")
    assert found["top_2gram"] == [4 / 16, 12 / 16]
    assert found["top_3gram"] == [10 / 16, 14 / 16]
    assert found["top_4gram"] == [1, 1]


def test_a_more_frequent_one_counts_before_an_earlier_one():
    assert signals("a b a b x y x y x y")["top_2gram"] == [0.6]


def test_what_occurs_once_or_in_two_documents_is_not_repeated():
    found = signals("a b c d e f", "a b c d e f", "", "x")
    assert set(map(tuple, found.values())) == {(0, 0, 0, 0)}


def test_occurrences_can_overlap_and_add_up_to_more_than_all():
    found = signals("x x x x x x")
    assert (found["top_2gram"], found["top_3gram"], found["top_4gram"]) == ([10 / 6], [2], [2])
    assert (found["dupe_5grams"], found["dupe_6grams"]) == ([1], [0])


def test_every_word_of_a_repeated_ngram_counts_once_the_first_occurrence_too():
    found = signals("aa b c d e f zz aa b c d e f yyy")
    assert found["dupe_5grams"] == [14 / 19]
    assert found["dupe_6grams"] == [14 / 19]
    assert found["dupe_7grams"] == [0]


def test_an_ngram_does_not_run_into_the_next_document():
    found = signals("p q r a b", "a b p q r a b")
    assert found["top_2gram"] == [0, 4 / 7]
    assert found["top_3gram"] == [0, 0]
