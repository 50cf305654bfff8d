"""Describe all domains of a catalog together: terms, flags and health, which need all of them."""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from jaxtyping import Float

from data_catalog.format import tables
from data_catalog.format.accounts import Account, total
from data_catalog.format.layout import Levels
from data_catalog.format.manifest import fingerprint, sha256_file
from data_catalog.place import Folder
from pipeline.cluster.tree import load_tree
from pipeline.config import Labels
from pipeline.describe import examples, health, terms
from pipeline.describe.stage import DOMAINS_FILE, stored_files
from pipeline.parts import Part, make_part

logger = logging.getLogger(__name__)

# Versions of the output:
# 1: terms, flags and health over all domains.
VERSION = 1
HEALTH_FILE = "health.parquet"


def describe_domains(
    described: Sequence[Part],
    stored: Sequence[Part],
    tree: Part,
    folder: Folder,
    labels: Labels | None,
    levels: Levels,
) -> Part:
    """Put the parts of `describe_part` together.

    Writes `domains.parquet` (one row per domain of all levels, including empty ones),
    `examples.parquet` and `health.parquet` (tables.DOMAINS, EXAMPLES, HEALTH). `stored` has the
    same documents, to compare them with `labels` if there are any.
    """
    label_table = health.read_labels(labels) if labels else None
    known = (sha256_file(labels.path), labels.column) if labels else None
    inputs = ([part.fingerprint for part in described], tree.fingerprint, known)

    def make(out: Path) -> Account:
        domains = _all_domains(
            [pq.read_table(part.file(DOMAINS_FILE)) for part in described], levels
        )
        domains = domains.append_column(
            "radius",
            pa.array(_radii(domains, load_tree(tree.folder).centroids, levels), from_pandas=True),
        )
        words = terms.best_terms(
            [part.folder for part in described], [levels.span(k) for k in levels.granularities]
        )
        term_lists = [
            by_domain.get(domain, [])
            for k, by_domain in zip(levels.granularities, words, strict=True)
            for domain in range(k)
        ]
        domains = domains.append_column("terms", pa.array(term_lists, pa.list_(pa.string())))
        domains = domains.append_column(
            "flags", pa.array(health.domain_flags(domains), pa.list_(pa.string()))
        )
        domains = domains.select(tables.DOMAINS.names).cast(tables.DOMAINS)
        pq.write_table(domains, out / DOMAINS_FILE, compression="zstd")
        with pq.ParquetWriter(
            out / examples.EXAMPLES_FILE, tables.EXAMPLES, compression="zstd"
        ) as writer:
            for part in described:
                writer.write_table(pq.read_table(part.file(examples.EXAMPLES_FILE)))
        agreement = (
            health.label_agreement(stored_files(stored), label_table, levels) if label_table else {}
        )
        measured = health.health_table(domains, agreement)
        pq.write_table(measured, out / HEALTH_FILE)
        for sentence in health.health_sentences(measured, domains):
            logger.info(sentence)
        kept = total(part.account for part in described).kept
        return Account(read=kept, kept=kept)

    return make_part(folder, fingerprint("domains", VERSION, levels.granularities, *inputs), make)


def _all_domains(parts: Sequence[pa.Table], levels: Levels) -> pa.Table:
    """Return one row per domain, sorted by level and number.

    An empty domain has 0 documents, empty lists and no distances.
    """
    table = pa.concat_tables(parts)
    first = np.cumsum([0, *levels.granularities])
    level = np.repeat(levels.granularities, levels.granularities)
    domain = np.arange(first[-1]) - np.repeat(first[:-1], levels.granularities)
    depth = np.searchsorted(levels.granularities, level)
    above = np.array([0, *levels.granularities[:-1]])[depth]
    parent = pa.array(domain // np.maximum(level // np.maximum(above, 1), 1), mask=above == 0)
    place = np.full(first[-1], -1)
    place[
        first[np.searchsorted(levels.granularities, table["level"].to_numpy())]
        + table["domain"].to_numpy()
    ] = np.arange(table.num_rows)
    filled = table.take(pa.array(place, mask=place < 0))
    columns: dict[str, pa.ChunkedArray | pa.Array] = {
        "level": pa.array(level),
        "domain": pa.array(domain),
        "parent": parent,
    }
    for name in table.schema.names[2:]:
        column = filled[name]
        if pa.types.is_list(column.type):
            column = pc.if_else(pc.is_null(column), pa.scalar([], column.type), column)
        columns[name] = pc.fill_null(column, 0) if name in {"documents", "tokens"} else column
    return pa.table(columns)


def _radii(
    domains: pa.Table, centroids: dict[int, Float[np.ndarray, "cells dim"]], levels: Levels
) -> Float[np.ndarray, " domains"]:
    """Return the root of the mean of `||x - C||^2 = 2 - 2 x.C` per domain, NaN for an empty one.

    A leaf's mean vector is taken to point along its centroid c, as k-means leaves it. Then mean(x)
    = (1 - d / 2) c, where d is the leaf's mean distance, and a coarser domain's mean x.C follows
    from its leaves alone.
    """
    at = {k: domains.filter(pc.equal(domains["level"], k)) for k in levels.granularities}
    documents = at[levels.leaves]["documents"].to_numpy()
    length = 1 - at[levels.leaves]["mean_distance"].to_numpy(zero_copy_only=False) / 2
    radii = []
    for k in levels.granularities:
        span = levels.span(k)
        cosine = np.ones(levels.leaves)
        if span > 1:
            for domain in range(k):
                leaves = slice(domain * span, (domain + 1) * span)
                cosine[leaves] = centroids[levels.leaves][leaves] @ centroids[k][domain]
        along = np.where(documents > 0, documents * length * cosine, 0).reshape(k, span).sum(axis=1)
        n = documents.reshape(k, span).sum(axis=1)
        squared = 2 - 2 * np.divide(along, n, out=np.full(k, np.nan), where=n > 0)
        radii.append(np.sqrt(np.maximum(squared, 0)))
    return np.concatenate(radii)
