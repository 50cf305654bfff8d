"""Line-level signals, each as its mean over a document's lines.

A source part keeps the shipped ones in the same form.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int, UInt32

from pipeline.quality.signals.characters import DECIMALS, UPPER, Characters, ratio, sums_between
from pipeline.quality.signals.raw_words import RawWords
from pipeline.quality.signals.words import NormalisedWords

# As published. The ASCII quotation mark is not a terminal mark, and a hyphen is not a bullet.
_TERMINAL = np.array([ord(mark) for mark in ".!?”"], np.uint32)
_BULLETS = np.array(
    [0x2022, 0x2023, 0x25B6, 0x25C0, 0x25E6, 0x25A0, 0x25A1, 0x25AA, 0x25AB, 0x2013], np.uint32
)


@dataclass(frozen=True)
class _Lines:
    """Lines of a batch. A line ends with its newline. The last newline does not begin a line."""

    starts: Int[np.ndarray, " lines"]
    ends: Int[np.ndarray, " lines"]  # before the newline
    sizes: Int[np.ndarray, " lines"]  # including the newline if it belongs to the text
    counts: Int[np.ndarray, " documents"]

    def mean(self, scores: np.ndarray) -> Float[np.ndarray, " documents"]:
        """Return the mean of the lines' scores per document, NaN for one without lines.

        Scores are rounded first, as in the published signals.
        """
        owner = np.repeat(np.arange(len(self.counts)), self.counts)
        return ratio(
            np.bincount(owner, np.round(scores.astype(np.float64), DECIMALS), len(self.counts)),
            self.counts,
        )


def line_signals(
    characters: Characters, runs: RawWords, words: NormalisedWords
) -> dict[str, Float[np.ndarray, " documents"]]:
    """Return the means over lines of the line-level signals.

    They are marks at the end, bullets at the start, words, `javascript`, numerals and capitals.
    """
    lines = _find_lines(characters)
    first_word = np.concatenate((np.zeros(1, np.int64), words.line_ends))[:-1]
    digits = sums_between(words.digits, first_word, words.line_ends)
    spaces = np.maximum(words.line_ends - first_word - 1, 0)
    normalised = sums_between(words.lengths, first_word, words.line_ends) + spaces
    uppercase = sums_between((characters.kinds & UPPER) != 0, lines.starts, lines.ends)
    head, last, dots = _edges(characters, runs, lines)
    return {
        "ccnet_length": (characters.ends - characters.starts).astype(np.float64),
        "ccnet_nlines": lines.counts.astype(np.float64),
        "rps_doc_frac_lines_end_with_ellipsis": np.round(
            lines.mean(dots | (last == ord("…"))), DECIMALS
        ),
        "rps_lines_ending_with_terminal_punctution_mark": lines.mean(np.isin(last, _TERMINAL)),
        "rps_lines_javascript_counts": ratio(words.occurrences("javascript"), lines.counts),
        "rps_lines_num_words": ratio(words.last - words.first, lines.counts),
        "rps_lines_numerical_chars_fraction": lines.mean(digits / np.maximum(normalised, 1)),
        "rps_lines_start_with_bulletpoint": lines.mean(np.isin(head, _BULLETS)),
        "rps_lines_uppercase_letter_fraction": lines.mean(uppercase / lines.sizes),
    }


def _find_lines(characters: Characters) -> _Lines:
    ends = np.flatnonzero(characters.codes == ord("\n"))
    starts = np.concatenate(([0], ends[:-1] + 1))
    added = np.zeros(len(characters.codes), bool)
    added[characters.ends] = True
    real = ~added[starts]  # a line that begins at an added newline is empty
    starts, ends = starts[real], ends[real]
    counts = np.searchsorted(starts, characters.ends) - np.searchsorted(starts, characters.starts)
    return _Lines(starts, ends, ends - starts + ~added[ends], counts)


def _edges(
    characters: Characters, runs: RawWords, lines: _Lines
) -> tuple[UInt32[np.ndarray, " lines"], UInt32[np.ndarray, " lines"], Bool[np.ndarray, " lines"]]:
    """Return each line's first and last character that is not a space, and whether it ends in dots.

    The characters are 0 for a line without any. Dots means three of them.
    """
    # Index i + 3 is the character i.
    codes = np.concatenate((np.zeros(3, np.uint32), characters.codes))
    first = np.searchsorted(runs.starts, lines.starts)
    final = np.searchsorted(runs.starts, lines.ends) - 1
    solid = first <= final
    head, last = np.zeros((2, len(solid)), np.uint32)
    dots = np.zeros(len(solid), bool)
    place = runs.ends[final[solid]] + 2
    head[solid], last[solid] = characters.codes[runs.starts[first[solid]]], codes[place]
    dots[solid] = (
        (codes[place] == ord(".")) & (codes[place - 1] == ord(".")) & (codes[place - 2] == ord("."))
    )
    return head, last, dots
