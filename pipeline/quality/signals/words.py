"""Normalised words: no ASCII punctuation, lower case, canonically decomposed, split at space."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Float, Int

from pipeline.quality.signals.characters import NUMERIC, kinds_of, ratio, sums_between


@dataclass(frozen=True)
class NormalisedWords:
    """Normalised words of a batch, in order."""

    # Equal for equal words of one document. Two documents have no id in common.
    ids: Int[np.ndarray, " words"]
    counts: Int[np.ndarray, " ids"]  # occurrences of each id
    lengths: Int[np.ndarray, " words"]  # in code points
    digits: Int[np.ndarray, " words"]  # numeric code points
    owner: Int[np.ndarray, " words"]  # document of each word
    first: Int[np.ndarray, " documents"]  # words first[i]:last[i] are document i's
    last: Int[np.ndarray, " documents"]
    line_ends: Int[np.ndarray, " lines"]  # words up to the end of each line
    known: pa.StringArray  # distinct words of all documents
    places: Int[np.ndarray, " words"]  # index of each word in `known`

    @property
    def text_lengths(self) -> Int[np.ndarray, " documents"]:
        """Code points of each normalised document, its words joined by single spaces."""
        total = self.last - self.first
        return sums_between(self.lengths, self.first, self.last) + np.maximum(total - 1, 0)

    def occurrences(self, word: str) -> Int[np.ndarray, " documents"]:
        """Return the number of times that each document has this word."""
        return np.bincount(
            self.owner[self.places == self.known.index(word).as_py()], minlength=len(self.first)
        )


def read_words(texts: Sequence[str], normal: Sequence[str]) -> NormalisedWords:
    """Return the words of at least one text. `normal` holds the same texts normalised."""
    words: list[str] = []
    line_ends: list[int] = []
    last: list[int] = []
    for text, bare in zip(texts, normal, strict=True):
        lines = bare.split("\n")
        if not text or text.endswith("\n"):
            lines.pop()  # the last newline does not begin a line
        for line in lines:
            words += line.split()
            line_ends.append(len(words))
        last.append(len(words))
    return _index(words, np.array(line_ends, np.int64), np.array(last, np.int64))


def _index(
    words: list[str], line_ends: Int[np.ndarray, " lines"], last: Int[np.ndarray, " documents"]
) -> NormalisedWords:
    encoded = pa.array(words, pa.string()).dictionary_encode()
    known = encoded.dictionary
    places = encoded.indices.to_numpy().astype(np.int64)
    ends = np.cumsum(pc.utf8_length(known).to_numpy().astype(np.int64))
    starts = np.concatenate((np.zeros(1, np.int64), ends[:-1]))[: len(ends)]
    kinds = kinds_of(np.frombuffer("".join(known.to_pylist()).encode("utf-32-le"), np.uint32))
    digits = sums_between((kinds & NUMERIC) != 0, starts, ends)
    first = np.concatenate(([0], last[:-1]))
    owner = np.repeat(np.arange(len(last)), last - first)
    _, ids, counts = np.unique(owner * len(known) + places, return_inverse=True, return_counts=True)
    return NormalisedWords(
        ids,
        counts,
        (ends - starts)[places],
        digits[places],
        owner,
        first,
        last,
        line_ends,
        known,
        places,
    )


def word_signals(words: NormalisedWords) -> dict[str, Float[np.ndarray, " documents"]]:
    """Return the signals of the number, length and variety of words. Entropy is in nats."""
    total = words.last - words.first
    owner = np.zeros(len(words.counts), np.int64)
    owner[words.ids] = words.owner
    weighted = np.bincount(owner, words.counts * np.log(words.counts), len(total))
    return {
        "rps_doc_word_count": total.astype(np.float64),
        "rps_doc_mean_word_length": ratio(
            sums_between(words.lengths, words.first, words.last), total
        ),
        "rps_doc_frac_unique_words": ratio(np.bincount(owner, minlength=len(total)), total),
        "rps_doc_unigram_entropy": np.log(np.maximum(total, 1)) - ratio(weighted, total),
    }
