from itertools import combinations

import numpy as np
import pytest

from pipeline.grams import component_numbers, family_numbers, index_grams
from tests.helpers.passages import grams_of, passage


def families(texts: list[str]) -> list[list[int]]:
    """Return the families of more than one document."""
    numbers = family_numbers(texts)
    groups = [np.flatnonzero(numbers == number).tolist() for number in np.unique(numbers)]
    return sorted(group for group in groups if len(group) > 1)


@pytest.fixture
def texts() -> list[str]:
    """Two hundred random texts of up to 60 of two words, so that some 13-grams are repeated."""
    random = np.random.Generator(np.random.Philox(key=5))
    short = [" ".join(random.choice(["a", "b"], random.integers(1, 60))) for _ in range(190)]
    return [*short, *(" ".join("ab" * 20) for _ in range(10))]


def test_shared_grams_are_those_of_sets_of_runs_of_words(texts):
    grams = [grams_of(text) for text in texts]
    index = index_grams(texts)
    assert index.sizes.tolist() == list(map(len, grams))
    found = {
        (text, document): count
        for text, documents, counts in index.shared(texts)
        for document, count in zip(documents.tolist(), counts.tolist(), strict=True)
    }
    expected = {
        (i, j): len(grams[i] & grams[j])
        for i in range(len(texts))
        for j in range(len(texts))
        if grams[i] & grams[j]
    }
    assert len(expected) > 2 * len(texts)
    assert found == expected


def test_grams_of_more_documents_than_the_maximum_are_left_out():
    texts = [passage("a", 14), passage("a", 13), passage("b", 13)]
    index = index_grams(texts, 1)
    assert index.sizes.tolist() == [1, 0, 1]
    assert [text for text, *_ in index.shared(texts)] == [0, 2]


def test_case_punctuation_and_space_do_not_count():
    text = passage("word", 15)
    assert families([text, text.upper().replace(" ", "!\n")]) == [[0, 1]]
    assert families([text, text.replace(" ", "-")]) == []  # words without space are one word


def test_half_of_the_grams_of_the_smaller_document_make_a_family():
    shared = passage("s", 22)  # ten 13-grams
    a, b = f"{shared} {passage('a', 10)}", f"{shared} {passage('b', 200)}"
    assert families([a, b]) == [[0, 1]]
    assert families([f"{shared} {passage('a', 11)}", b]) == []


def test_families_are_transitive_and_short_texts_are_whole():
    first, second = passage("p", 30), passage("q", 30)
    texts = [first, f"{first} {second}", second, "Yes, it is.", "yes it is", "no it is not", ""]
    assert families(texts) == [[0, 1, 2], [3, 4]]


def test_an_instruction_in_all_documents_makes_no_family():
    instruction = passage("do", 60)
    texts = [f"{instruction} {passage(f'p{i // 2}n', 20)} {i}" for i in range(30)]
    assert families(texts) == [[2 * i, 2 * i + 1] for i in range(15)]


def test_without_documents_there_is_nothing_to_share():
    index = index_grams([])
    assert (len(index.grams), list(index.shared([passage("a", 20)]))) == (0, [])
    assert family_numbers([]).tolist() == []


def test_components_are_linked_by_chains_of_edges():
    numbers = component_numbers(6, np.array([0, 4, 3]), np.array([2, 2, 5]))
    same = {(a, b) for a, b in combinations(range(6), 2) if numbers[a] == numbers[b]}
    assert same == {(0, 2), (0, 4), (2, 4), (3, 5)}
