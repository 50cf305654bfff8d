import numpy as np
import pytest

from pipeline.describe.terms import best_terms, count_words, documents_per_leaf


@pytest.fixture
def counted(tmp_path):
    """Leaves 0 and 1 are in one folder, and leaf 3 in another. Leaf 2 has no documents."""
    for name, texts, leaves in (
        ("a", ["whales swim whales sea", "the stars shine 42 sea"], [0, 1]),
        ("b", ["sea bread"], [3]),
    ):
        (tmp_path / name).mkdir()
        count_words(texts, np.array(leaves), tmp_path / name)
    return [tmp_path / "a", tmp_path / "b"]


def test_terms_distinguish_a_domain(counted):
    [coarse, leaves] = best_terms(counted, [2, 1])
    assert leaves == {
        0: ["whales", "swim", "sea"],
        1: ["shine", "stars", "sea"],
        3: ["bread", "sea"],
    }
    assert coarse == {
        0: ["whales", "sea", "shine", "stars", "swim"],
        1: ["bread", "sea"],
    }  # sea: twice in domain 0


def test_weights_of_words_follow_class_tf_idf(tmp_path):
    (tmp_path / "a").mkdir()
    count_words(
        ["rare rare common common common", "common common common common"],
        np.array([0, 1]),
        tmp_path / "a",
    )
    # 9 words in 2 domains: A = 4.5. In domain 0, `rare` has 2/5 ln(1 + 4.5/2) = 0.47, and `common`
    # has 3/5 ln(1 + 4.5/7) = 0.30.
    assert best_terms([tmp_path / "a"], [1]) == [{0: ["rare", "common"], 1: ["common"]}]


def test_only_the_best_terms_are_kept(counted):
    assert best_terms(counted, [1], most=1) == [{0: ["whales"], 1: ["shine"], 3: ["bread"]}]


def test_texts_without_words(tmp_path):
    (tmp_path / "a").mkdir()
    count_words(["1 2 3", "?"], np.array([4, 5]), tmp_path / "a")
    assert best_terms([tmp_path / "a"], [1]) == [{4: [], 5: []}]
    (tmp_path / "b").mkdir()
    count_words([], np.array([], int), tmp_path / "b")
    assert best_terms([tmp_path / "b"], [1]) == [{}]


@pytest.mark.parametrize(("leaves", "documents"), [(1, 100), (400, 100), (800, 50), (4_096, 10)])
def test_the_amount_of_text_is_bounded(leaves, documents):
    assert documents_per_leaf(leaves) == documents
