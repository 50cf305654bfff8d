"""Texts of a batch as one array of code points, each with its kinds."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8, UInt32

WORD, SPACE, LATIN, UPPER, LOWER, NUMERIC, END = (1 << bit for bit in range(7))
DECIMALS = 8  # decimals of a score in RedPajama-V2
_PLANES = 0x40000  # no code point from here on is a letter, a number or a space


@dataclass(frozen=True)
class Characters:
    """Texts joined by newlines.

    Document i is `codes[starts[i]:ends[i]]`, and `codes[ends[i]]` is the added newline.
    """

    codes: UInt32[np.ndarray, " characters"]
    kinds: UInt8[np.ndarray, " characters"]
    starts: Int[np.ndarray, " documents"]
    ends: Int[np.ndarray, " documents"]


def read_characters(texts: Sequence[str]) -> Characters:
    """Return the code points of at least one text. Texts must not hold lone surrogates."""
    codes = np.frombuffer("".join(f"{text}\n" for text in texts).encode("utf-32-le"), np.uint32)
    ends = np.cumsum(np.fromiter(map(len, texts), np.int64, len(texts)) + 1)
    return Characters(codes, kinds_of(codes), np.concatenate(([0], ends[:-1])), ends - 1)


def kinds_of(codes: UInt32[np.ndarray, " n"]) -> UInt8[np.ndarray, " n"]:
    r"""Return the kinds of each code point as bits.

    WORD matches `\w`, and SPACE matches `\s`. LATIN is a-z or A-Z. UPPER is an upper-case letter,
    LOWER a lower-case or title-case one. NUMERIC is `str.isnumeric`. END is one of `.`, `!` and
    `?`. All follow Python's Unicode tables, as the published definitions do.
    """
    kinds: UInt8[np.ndarray, " n"] = _table()[np.minimum(codes, _PLANES - 1)]
    return kinds


@cache
def _table() -> UInt8[np.ndarray, " planes"]:
    characters = list(map(chr, range(_PLANES)))

    def matching(test: Callable[[str], bool]) -> Bool[np.ndarray, " planes"]:
        return np.fromiter(map(test, characters), bool, _PLANES)

    # A single upper-case letter is also in title case.
    upper, title = matching(str.isupper), matching(str.istitle)
    table = np.zeros(_PLANES, np.uint8)
    table[matching(str.isalnum)] |= WORD
    table[ord("_")] |= WORD
    table[matching(str.isspace)] |= SPACE
    table[upper] |= UPPER
    table[matching(str.islower) | (title & ~upper)] |= LOWER
    table[matching(str.isnumeric)] |= NUMERIC
    for letters in ("az", "AZ"):
        table[ord(letters[0]) : ord(letters[1]) + 1] |= LATIN
    table[[ord(mark) for mark in ".!?"]] |= END
    return table


def sums_between(
    values: np.ndarray, low: Int[np.ndarray, " n"], high: Int[np.ndarray, " n"]
) -> Int[np.ndarray, " n"]:
    """Return the sum of `values[low[i]:high[i]]` for each i."""
    sums = np.concatenate((np.zeros(1, np.int64), np.cumsum(values, dtype=np.int64)))
    return sums[high] - sums[low]


def ratio(part: np.ndarray, whole: Int[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Return `part / whole`, NaN where the whole is 0."""
    return np.divide(part, whole, out=np.full(len(whole), np.nan), where=whole != 0)
