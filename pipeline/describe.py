"""What is in each domain: sizes, distances, characteristic terms, exemplars, sources, and flags for what looks wrong."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float, Int
from scipy.sparse import csr_matrix
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.metrics import normalized_mutual_info_score

from data_catalog import tables
from data_catalog.layout import Levels
from data_catalog.manifest import fingerprint
from data_catalog.records import Account
from pipeline.parts import Part, make_part

VERSION = 1
TERMS = 10
TERM_DOCUMENTS = 100  # documents of a leaf whose opening is read for terms
TERM_CHARACTERS = 1_000
VOCABULARY = 50_000
WORD = r"(?u)\b[^\W\d_]{3,}\b"

STATISTICS = """
    SELECT leaf // $span AS domain, count(*) AS documents, sum(tokens)::BIGINT AS tokens, avg(distance) AS mean_distance,
           quantile_cont(distance::DOUBLE, [0.05, 0.25, 0.5, 0.75, 0.95]) AS distance_quantiles,
           (list(doc_id ORDER BY distance, doc_id))[1:5] AS exemplars
    FROM read_parquet($files) GROUP BY domain ORDER BY domain"""
SOURCES = """
    SELECT domain, list(source ORDER BY n DESC, source)[1:3] AS sources, max(n) / sum(n) AS top_share
    FROM (SELECT leaf // $span AS domain, coalesce(source, '') AS source, count(*) AS n FROM read_parquet($files) GROUP BY ALL)
    GROUP BY domain"""


def describe(shards: list[Part], folder: Path, levels: Levels) -> Part:
    """Write `domains.parquet` (tables.DOMAINS): one row a domain, all levels, empty ones too."""

    def make(out: Path) -> Account:
        files = [str(part.folder / "documents.parquet") for part in shards]
        terms = _terms(shards, levels)
        rows = [row for k in levels.granularities for row in _level(files, terms[k], levels, k)]
        pq.write_table(pa.Table.from_pylist(rows, tables.DOMAINS), out / "domains.parquet", compression="zstd")
        return Account()

    return make_part(folder, fingerprint("describe", VERSION, levels.granularities, [part.fingerprint for part in shards]), make)


def agreement(labels: Sequence[str], leaves: Int[np.ndarray, " documents"], levels: Levels) -> dict[int, float]:
    """Normalised mutual information (arithmetic mean) of the domains with known labels of the documents, by granularity."""
    return {k: float(normalized_mutual_info_score(labels, levels.domains(leaves, k))) for k in levels.granularities}


def _level(files: list[str], terms: list[list[str]], levels: Levels, k: int) -> Iterator[dict[str, object]]:
    place = {"files": files, "span": levels.span(k)}
    with duckdb.connect() as connection:
        statistics = {row["domain"]: row for row in connection.sql(STATISTICS, params=place).to_arrow_table().to_pylist()}
        sources = {row["domain"]: row for row in connection.sql(SOURCES, params=place).to_arrow_table().to_pylist()}
    depth = levels.granularities.index(k)
    branch = k // levels.granularities[depth - 1] if depth else 0
    empty: dict[str, object] = {"documents": 0, "tokens": 0, "mean_distance": None, "distance_quantiles": [], "exemplars": []}
    for domain in range(k):
        known = statistics.get(domain, empty)
        yield {
            **known,
            "level": k,
            "domain": domain,
            "parent": domain // branch if branch else None,
            "terms": terms[domain],
            "top_sources": sources[domain]["sources"] if domain in sources else [],
            "flags": _flags(known, sources.get(domain)),
        }


def _flags(statistics: dict[str, object], source: dict[str, object] | None) -> list[str]:
    documents, distance = statistics["documents"], statistics["mean_distance"]
    assert isinstance(documents, int)  # noqa: S101 - narrows a DuckDB row for the type checker
    if not documents:
        return ["empty"]
    checks = {
        "boilerplate": isinstance(distance, float) and documents > 1 and distance < 0.05,  # documents that are nearly one text
        "one_source": source is not None and documents >= 10 and float(str(source["top_share"])) > 0.95,
        "tiny": documents < 5,
    }
    return [name for name, found in checks.items() if found]


def _terms(shards: list[Part], levels: Levels) -> dict[int, list[list[str]]]:
    """c-TF-IDF (Grootendorst 2022): `tf(t, c) * log(1 + A / f(t))`, A the mean number of words a domain, f over all domains."""
    vectorizer = CountVectorizer(stop_words="english", token_pattern=WORD, max_features=VOCABULARY, dtype=np.int64)
    try:
        by_leaf = vectorizer.fit_transform(_openings(shards, levels))
    except ValueError:  # no word in the whole corpus
        return {k: [[] for _ in range(k)] for k in levels.granularities}
    names = vectorizer.get_feature_names_out()
    return {k: [_best(row, names) for row in _class_tf_idf(_group(by_leaf, k))] for k in levels.granularities}


def _openings(shards: list[Part], levels: Levels) -> Iterator[str]:
    """One text a leaf, in order: the openings of some of its documents (which ones, their id's hash decided)."""
    span = levels.span(levels.granularities[0])
    for top, part in enumerate(shards):
        table = pq.read_table(part.folder / "documents.parquet", columns=["leaf", "text"])
        bounds = np.searchsorted(table["leaf"].to_numpy(), np.arange(top * span, (top + 1) * span + 1))
        for first, last in pairwise(bounds):
            texts = table["text"].slice(first, min(last - first, TERM_DOCUMENTS))
            yield "\n".join(str(text)[:TERM_CHARACTERS] for text in texts.to_pylist())


def _group(by_leaf: csr_matrix, k: int) -> csr_matrix:
    """Sum leaves into the k domains of a level."""
    leaves = by_leaf.shape[0]
    member = csr_matrix((np.ones(leaves, np.int64), (np.arange(leaves) // (leaves // k), np.arange(leaves))), shape=(k, leaves))
    return (member @ by_leaf).tocsr()


def _class_tf_idf(counts: csr_matrix) -> Iterator[tuple[Float[np.ndarray, " terms"], np.ndarray]]:
    words = np.asarray(counts.sum(axis=1)).ravel()
    inverse = np.log1p(words.mean() / np.maximum(np.asarray(counts.sum(axis=0)).ravel(), 1))
    for c in range(counts.shape[0]):
        entries = slice(counts.indptr[c], counts.indptr[c + 1])
        ids = counts.indices[entries]
        yield counts.data[entries] / max(words[c], 1) * inverse[ids], ids


def _best(row: tuple[Float[np.ndarray, " terms"], np.ndarray], names: np.ndarray) -> list[str]:
    scores, ids = row
    return [str(names[ids[i]]) for i in np.lexsort((ids, -scores))[:TERMS]]
