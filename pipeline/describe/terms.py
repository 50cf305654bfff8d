"""Terms that distinguish a domain: c-TF-IDF over words counted in a sample of each leaf."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from jaxtyping import Float, Int
from scipy.sparse import csr_matrix, load_npz, save_npz

MAXIMUM_TERMS = 10  # terms per domain
OPENING_CHARACTERS = 1_000  # characters read per document
LEAF_DOCUMENTS = (10, 100)  # minimum and maximum number of documents read per leaf
# Number of documents per top-level domain that `documents_per_leaf` aims at: 40 MB of text.
MAXIMUM_SAMPLE_DOCUMENTS = 40_000
MAXIMUM_WORDS = 50_000  # per top-level domain; rarer words do not characterise its domains
_WORD_PATTERN = r"(?u)\b[^\W\d_]{3,}\b"
WORDS_FILE, COUNTS_FILE = "words.parquet", "counts.npz"


def documents_per_leaf(leaves: int) -> int:
    """Return the number of documents to read per leaf if a top-level domain has `leaves` leaves."""
    minimum, maximum = LEAF_DOCUMENTS
    return min(max(MAXIMUM_SAMPLE_DOCUMENTS // max(leaves, 1), minimum), maximum)


def count_words(texts: Iterable[str], leaves: Int[np.ndarray, " texts"], out: Path) -> None:
    """Write the words of one top-level domain.

    `words.parquet` has word and count, and `counts.npz` one row per leaf and one column per word.
    `texts` is one text per leaf, and `leaves` are their numbers. Words are runs of at least three
    letters. English stop words are left out.
    """
    from sklearn.feature_extraction.text import CountVectorizer  # noqa: PLC0415 - a second of import

    vectorizer = CountVectorizer(
        stop_words="english",
        token_pattern=_WORD_PATTERN,
        max_features=MAXIMUM_WORDS,
        dtype=np.int64,
    )
    try:
        counts = vectorizer.fit_transform(texts).tocsr()
        words = vectorizer.get_feature_names_out().astype(object)
    except ValueError:  # no word in any text
        counts, words = csr_matrix((len(leaves), 0), dtype=np.int64), np.array([], object)
    table = {
        "word": pa.array(words, pa.string()),
        "count": np.asarray(counts.sum(axis=0), np.int64).ravel(),
    }
    pq.write_table(pa.table(table), out / WORDS_FILE, compression="zstd")
    pq.write_table(pa.table({"leaf": pa.array(leaves, pa.int64())}), out / "leaves.parquet")
    save_npz(out / COUNTS_FILE, counts)


def best_terms(
    folders: Sequence[Path], spans: Sequence[int], most: int = MAXIMUM_TERMS
) -> list[dict[int, list[str]]]:
    """Return for each span (leaves per domain) the terms of every domain with a word, best first.

    c-TF-IDF (Grootendorst 2022, BERTopic): `tf(t, c) * log(1 + A / f(t))`, where tf is the word's
    share of the domain's words, f its count in all domains and A the mean number of words per
    domain. `folders` were filled by `count_words`, one per top-level domain. A word that is not
    among a folder's most frequent ones counts as absent there.
    """
    tables = [pq.read_table(folder / WORDS_FILE) for folder in folders]
    everywhere = pa.concat_tables(tables).group_by("word").aggregate([("count", "sum")])
    leaves = [pq.read_table(folder / "leaves.parquet")["leaf"].to_numpy() for folder in folders]
    total = pc.sum(everywhere["count_sum"]).as_py() or 0
    means = [
        total / max(sum(len(np.unique(numbers // span)) for numbers in leaves), 1) for span in spans
    ]
    best: list[dict[int, list[str]]] = [{} for _ in spans]
    for folder, table, numbers in zip(folders, tables, leaves, strict=True):
        frequency = (
            everywhere["count_sum"].take(pc.index_in(table["word"], everywhere["word"])).to_numpy()
        )
        words, by_leaf = table["word"].to_pylist(), load_npz(folder / COUNTS_FILE)
        for terms, span, mean in zip(best, spans, means, strict=True):
            domains, counts = _group(by_leaf, numbers // span)
            for domain, (scores, ids) in zip(
                domains.tolist(), _scores(counts, np.log1p(mean / frequency)), strict=True
            ):
                terms[domain] = [words[i] for i in ids[np.lexsort((ids, -scores))[:most]]]
    return best


def _group(
    by_leaf: csr_matrix, domain: Int[np.ndarray, " leaves"]
) -> tuple[Int[np.ndarray, " domains"], csr_matrix]:
    """Sum the rows of each domain."""
    domains, place = np.unique(domain, return_inverse=True)
    member = csr_matrix(
        (np.ones(len(domain), np.int64), (place, np.arange(len(domain)))),
        shape=(len(domains), len(domain)),
    )
    return domains, (member @ by_leaf).tocsr()


def _scores(
    counts: csr_matrix, inverse: Float[np.ndarray, " words"]
) -> Iterator[tuple[Float[np.ndarray, " found"], Int[np.ndarray, " found"]]]:
    """Yield scores and columns of the words of each row."""
    sizes = np.asarray(counts.sum(axis=1)).ravel()
    for row in range(counts.shape[0]):
        entries = slice(counts.indptr[row], counts.indptr[row + 1])
        ids = counts.indices[entries]
        yield counts.data[entries] / max(sizes[row], 1) * inverse[ids], ids
