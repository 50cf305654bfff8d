"""Plain definitions of the signals of RedPajama-V2, one text at a time.

The fast implementation must give the same values.
"""

import re
import string
import unicodedata
from collections import Counter
from math import log

NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalise(text):
    text = re.sub(r"\s+", " ", text.translate(NO_PUNCTUATION).lower().strip())
    return unicodedata.normalize("NFD", text)


def plain(text):
    """Return every signal of a text by name, rounded to 8 decimals, or None if it is undefined."""
    normal = normalise(text)
    words, raw = normal.split(), re.findall(r"\w+|[^\w\s]+", text)
    lines = re.findall(r"[^\n]*\n|[^\n]+$", text)
    found = {
        "rps_doc_word_count": len(words),
        "rps_doc_mean_word_length": share(sum(map(len, words)), len(words)),
        "rps_doc_frac_unique_words": share(len(set(words)), len(words)),
        "rps_doc_unigram_entropy": -sum(
            n / len(words) * log(n / len(words)) for n in Counter(words).values()
        )
        if words
        else None,
        "rps_doc_frac_no_alph_words": share(
            sum(re.search("[a-zA-Z]", word) is None for word in raw), len(raw)
        ),
        "rps_doc_frac_all_caps_words": share(sum(map(str.isupper, raw)), len(raw)),
        "rps_doc_symbol_to_word_ratio": share(sum(map(text.count, ("#", "...", "…"))), len(raw)),
        "rps_doc_num_sentences": len(re.findall(r"\b[^.!?]+[.!?]*", text)),
        "rps_doc_curly_bracket": (text.count("{") + text.count("}")) / max(len(text), 1),
        "rps_doc_lorem_ipsum": normal.count("lorem ipsum") / max(len(normal), 1),
        "rps_doc_frac_lines_end_with_ellipsis": share(
            sum(line.rstrip().endswith(("...", "…")) for line in lines), len(lines)
        ),
        "ccnet_length": len(text),
        "ccnet_nlines": len(lines),
        **{f"rps_doc_frac_chars_top_{n}gram": top(words, n) for n in (2, 3, 4)},
        **{f"rps_doc_frac_chars_dupe_{n}grams": repeated(words, n) for n in range(5, 11)},
    }
    for name, score in LINES.items():
        found[f"rps_lines_{name}"] = share(
            sum(round(score(line, normalise(line)), 8) for line in lines), len(lines)
        )
    return {
        name: value if value is None else round(float(value), 8) for name, value in found.items()
    }


LINES = {
    "ending_with_terminal_punctution_mark": lambda line, _: line.rstrip().endswith(
        (".", "!", "?", "”")
    ),
    "javascript_counts": lambda _, normal: normal.split().count("javascript"),
    "num_words": lambda _, normal: len(normal.split()),
    "numerical_chars_fraction": lambda _, normal: (
        sum(map(str.isnumeric, normal)) / max(len(normal), 1)
    ),
    "start_with_bulletpoint": lambda line, _: line.lstrip().startswith(
        ("•", "‣", "▶", "◀", "◦", "■", "□", "▪", "▫", "–")
    ),
    "uppercase_letter_fraction": lambda line, _: sum(map(str.isupper, line)) / len(line),
}


def share(part, whole):
    return part / whole if whole else None


def ngrams(words, n):
    return [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]


def top(words, n):
    [(ngram, count)] = Counter(ngrams(words, n)).most_common(1) or [((), 0)]
    return sum(map(len, ngram)) * count / sum(map(len, words)) if count > 1 else 0


def repeated(words, n):
    counts = Counter(ngrams(words, n))
    covered = {
        i + j for i, ngram in enumerate(ngrams(words, n)) if counts[ngram] > 1 for j in range(n)
    }
    return sum(len(words[i]) for i in covered) / max(sum(map(len, words)), 1)
