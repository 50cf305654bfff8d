r"""Raw words, which are the matches of `\w+|[^\w\s]+`."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from pipeline.quality.signals.characters import (
    END,
    LATIN,
    LOWER,
    SPACE,
    UPPER,
    WORD,
    Characters,
    ratio,
    sums_between,
)


@dataclass(frozen=True)
class RawWords:
    """Raw words of a batch, in order, with their ends and the union of their characters' kinds."""

    starts: Int[np.ndarray, " runs"]
    ends: Int[np.ndarray, " runs"]
    kinds: UInt8[np.ndarray, " runs"]
    first: Int[np.ndarray, " documents"]  # runs first[i]:last[i] are document i's
    last: Int[np.ndarray, " documents"]


def find_raw_words(characters: Characters) -> RawWords:
    classes = characters.kinds & (WORD | SPACE)
    starts = np.concatenate(([0], np.flatnonzero(classes[1:] != classes[:-1]) + 1))
    ends = np.append(starts[1:], len(classes))
    solid = (classes[starts] & SPACE) == 0
    kinds = np.bitwise_or.reduceat(characters.kinds, starts)[solid]
    starts, ends = starts[solid], ends[solid]
    return RawWords(
        starts,
        ends,
        kinds,
        np.searchsorted(starts, characters.starts),
        np.searchsorted(starts, characters.ends),
    )


def raw_word_signals(
    runs: RawWords, symbols: Int[np.ndarray, " documents"]
) -> dict[str, Float[np.ndarray, " documents"]]:
    r"""Return the signals of the raw words.

    `symbols` is the number of `#`, `...` and `\u2026` in each document.
    """

    def count(which: Bool[np.ndarray, " runs"]) -> Int[np.ndarray, " documents"]:
        return sums_between(which, runs.first, runs.last)

    total = runs.last - runs.first
    capitals = (runs.kinds & (UPPER | LOWER)) == UPPER
    return {
        "rps_doc_frac_no_alph_words": 1 - ratio(count((runs.kinds & LATIN) != 0), total),
        "rps_doc_frac_all_caps_words": ratio(count(capitals), total),
        "rps_doc_symbol_to_word_ratio": ratio(symbols, total),
        "rps_doc_num_sentences": _sentences(runs).astype(np.float64),
    }


def _sentences(runs: RawWords) -> Int[np.ndarray, " documents"]:
    r"""Count the matches of `\b[^.!?]+[.!?]*`.

    There is one per stretch between `.`, `!` and `?` that has a word in it. So those words are
    counted that are the first of their document, or the first since one of the marks.
    """
    word = (runs.kinds & WORD) != 0
    telling = np.flatnonzero(word | ((runs.kinds & END) != 0))
    owner = np.searchsorted(runs.last, telling, side="right")
    opens = word[telling]
    opens[1:] &= ~word[telling[:-1]] | (owner[1:] != owner[:-1])
    return np.bincount(owner[opens], minlength=len(runs.last))
