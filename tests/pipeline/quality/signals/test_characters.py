import numpy as np

from pipeline.quality.signals.characters import (
    END,
    LATIN,
    LOWER,
    NUMERIC,
    SPACE,
    UPPER,
    WORD,
    kinds_of,
    ratio,
    read_characters,
    sums_between,
)


def test_kinds_are_those_of_python():
    text = "aZé_½ \u2028.ǅ•中😀"
    assert kinds_of(np.array([ord(c) for c in text], np.uint32)).tolist() == [
        WORD | LATIN | LOWER,
        WORD | LATIN | UPPER,
        WORD | LOWER,
        WORD,
        WORD | NUMERIC,
        SPACE,
        SPACE,
        END,
        WORD | LOWER,  # title case: one letter that is upper and lower
        0,
        WORD,
        0,
    ]


def test_no_code_point_above_the_table_is_of_any_kind():
    above = map(chr, range(0x40000, 0x110000))
    assert not any(
        c.isalnum() or c.isspace() or c.isnumeric() or c.isupper() or c.islower() for c in above
    )
    assert kinds_of(np.array([0x3FFFF, 0x10FFFF], np.uint32)).tolist() == [0, 0]


def test_texts_are_joined_by_newlines():
    characters = read_characters(["a😀", "", "\n"])
    assert characters.codes.tolist() == [97, 0x1F600, 10, 10, 10, 10]
    assert (characters.starts.tolist(), characters.ends.tolist()) == ([0, 3, 4], [2, 3, 5])


def test_sums_between_and_shares():
    low, high = np.array([0, 1, 3]), np.array([3, 1, 4])
    assert sums_between(np.array([True, False, True, True]), low, high).tolist() == [2, 0, 1]
    np.testing.assert_array_equal(ratio(np.array([1, 0]), np.array([4, 0])), [0.25, np.nan])
