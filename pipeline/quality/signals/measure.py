"""Quality signals of RedPajama-V2 that text alone decides, for whole batches at once.

They follow the published definitions.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Float, Int

from pipeline.grams import normalise
from pipeline.quality.signals.by_line import line_signals
from pipeline.quality.signals.characters import DECIMALS, read_characters
from pipeline.quality.signals.ngrams import repetition_signals
from pipeline.quality.signals.raw_words import find_raw_words, raw_word_signals
from pipeline.quality.signals.words import read_words, word_signals

# Versions of the output:
# 1: the signals of RedPajama-V2, measured here.
VERSION = 1
_CHUNK = 500_000  # characters worked on at once, or one document: some 100 bytes each

SIGNAL_NAMES = (
    "ccnet_length",
    "ccnet_nlines",
    "rps_doc_curly_bracket",
    "rps_doc_frac_all_caps_words",
    *(f"rps_doc_frac_chars_dupe_{n}grams" for n in range(5, 11)),
    *(f"rps_doc_frac_chars_top_{n}gram" for n in range(2, 5)),
    "rps_doc_frac_lines_end_with_ellipsis",
    "rps_doc_frac_no_alph_words",
    "rps_doc_frac_unique_words",
    "rps_doc_lorem_ipsum",
    "rps_doc_mean_word_length",
    "rps_doc_num_sentences",
    "rps_doc_symbol_to_word_ratio",
    "rps_doc_unigram_entropy",
    "rps_doc_word_count",
    "rps_lines_ending_with_terminal_punctution_mark",  # as published
    "rps_lines_javascript_counts",
    "rps_lines_num_words",
    "rps_lines_numerical_chars_fraction",
    "rps_lines_start_with_bulletpoint",
    "rps_lines_uppercase_letter_fraction",
)


def measure_signals(texts: Sequence[str]) -> Float[np.ndarray, "documents signals"]:
    """Return the signals `SIGNAL_NAMES` of each text.

    Scores are rounded to 8 decimals, as published ones are. A line-level signal is the mean over
    the lines. A share of nothing is NaN, as in a text without words. Signals that need a word list
    (stop words, bad words, blocked sites) or a model (perplexity, language score, importance) are
    not computed.
    """
    parts = [_measure(texts[low:high]) for low, high in _chunks(texts)]
    return np.concatenate([np.empty((0, len(SIGNAL_NAMES))), *parts])


def _chunks(texts: Sequence[str]) -> Iterator[tuple[int, int]]:
    start = size = 0
    for place, text in enumerate(texts):
        size += len(text)
        if size >= _CHUNK:
            yield start, place + 1
            start, size = place + 1, 0
    if start < len(texts):
        yield start, len(texts)


def _measure(texts: Sequence[str]) -> Float[np.ndarray, "documents signals"]:
    normal = [normalise(text) for text in texts]
    characters = read_characters(texts)
    runs = find_raw_words(characters)
    words = read_words(texts, normal)
    lengths = characters.ends - characters.starts
    scores = {
        **word_signals(words),
        **repetition_signals(words),
        **raw_word_signals(runs, _count(texts, "#", "...", "…")),
        "rps_doc_curly_bracket": _count(texts, "{", "}") / np.maximum(lengths, 1),
        "rps_doc_lorem_ipsum": _fillers(normal) / np.maximum(words.text_lengths, 1),
    }
    signals = {
        **{name: np.round(score, DECIMALS) for name, score in scores.items()},
        **line_signals(characters, runs, words),
    }
    return np.column_stack([signals[name] for name in SIGNAL_NAMES])


def _count(texts: Sequence[str], *strings: str) -> Int[np.ndarray, " documents"]:
    return np.array([sum(text.count(string) for string in strings) for text in texts], np.int64)


def _fillers(normal: Sequence[str]) -> Int[np.ndarray, " documents"]:
    """Count `lorem ipsum` in each normalised text, with white space collapsed."""
    return np.array(
        [" ".join(text.split()).count("lorem ipsum") if "lorem" in text else 0 for text in normal],
        np.int64,
    )
