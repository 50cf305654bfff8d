"""Repetition: the share of a document's characters in repeated runs of words."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, Num

from pipeline.quality.signals.words import NormalisedWords

_TOP_SIZES = (2, 3, 4)
_DUPLICATED_SIZES = (5, 6, 7, 8, 9, 10)


@dataclass(frozen=True)
class _Repeated:
    """The n-grams of a batch that occur more than once in their document."""

    places: Int[np.ndarray, " ngrams"]  # word at which it begins, ascending
    groups: Int[np.ndarray, " ngrams"]  # equal for equal n-grams of one document
    counts: Int[np.ndarray, " groups"]


def repetition_signals(words: NormalisedWords) -> dict[str, Float[np.ndarray, " documents"]]:
    """Return the shares of characters in repeated n-grams.

    `frac_chars_top_Ngram` is the length of the most frequent n-gram (the first to occur, among
    equals) times its count, over all characters, or 0 if none occurs twice. It can exceed 1,
    because occurrences can overlap. `frac_chars_dupe_Ngrams` is the share of characters of words in
    any n-gram that occurs more than once, including its first occurrence.

    The counts are exact, without hashing. An n-gram is a pair of (n-1)-grams, the second one word
    later, and can only be repeated where both are.
    """
    total = np.bincount(words.owner, words.lengths, len(words.first))
    sums = np.concatenate((np.zeros(1, np.int64), np.cumsum(words.lengths)))
    repeated = _keep(np.arange(len(words.ids)), words.ids, words.counts)
    signals = {}
    for n in range(2, max(_DUPLICATED_SIZES) + 1):
        repeated = _longer(repeated)
        if n in _TOP_SIZES:
            characters, name = _top(repeated, n, words, sums), f"rps_doc_frac_chars_top_{n}gram"
        elif n in _DUPLICATED_SIZES:
            characters, name = _covered(repeated, n, words), f"rps_doc_frac_chars_dupe_{n}grams"
        signals[name] = characters / np.maximum(total, 1)
    return signals


def _keep(
    places: Int[np.ndarray, " n"], groups: Int[np.ndarray, " n"], counts: Int[np.ndarray, " groups"]
) -> _Repeated:
    twice = counts[groups] > 1
    return _Repeated(places[twice], groups[twice], counts)


def _longer(shorter: _Repeated) -> _Repeated:
    """Return the repeated (n+1)-grams, from the repeated n-grams.

    Those that run into the next document occur once, because no two documents share a word's id.
    """
    pairs = np.flatnonzero(shorter.places[1:] == shorter.places[:-1] + 1)
    codes = shorter.groups[pairs] * len(shorter.counts) + shorter.groups[pairs + 1]
    _, groups, counts = np.unique(codes, return_inverse=True, return_counts=True)
    return _keep(shorter.places[pairs], groups, counts)


def _top(
    repeated: _Repeated, n: int, words: NormalisedWords, sums: Int[np.ndarray, " words_plus_one"]
) -> Int[np.ndarray, " documents"]:
    """Return the length of each document's most frequent n-gram, times its count."""
    count = repeated.counts[repeated.groups]
    owner = words.owner[repeated.places]
    best = np.zeros(len(words.first), np.int64)
    np.maximum.at(best, owner, count)
    leading = np.flatnonzero(count == best[owner])
    # Places ascend, so this is the first such n-gram of each document.
    documents, index = np.unique(owner[leading], return_index=True)
    first = repeated.places[leading[index]]
    characters = np.zeros(len(words.first), np.int64)
    characters[documents] = (sums[first + n] - sums[first]) * best[documents]
    return characters


def _covered(repeated: _Repeated, n: int, words: NormalisedWords) -> Num[np.ndarray, " documents"]:
    """Return the number of characters of the words that a repeated n-gram covers."""
    covered = np.zeros(len(words.ids), bool)
    covered[(repeated.places[:, None] + np.arange(n)).ravel()] = True
    return np.bincount(words.owner[covered], words.lengths[covered], len(words.first))
