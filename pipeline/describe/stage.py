"""Describe the domains of one top-level domain.

The description has sizes, distances, examples, sites, languages and the words for their terms.
"""

import glob
from collections.abc import Iterator, Sequence
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data_catalog.format import tables
from data_catalog.format.accounts import Account, total
from data_catalog.format.layout import Levels
from data_catalog.format.manifest import fingerprint
from data_catalog.place import Folder
from pipeline.describe import examples, terms
from pipeline.describe.examples import LeafSample
from pipeline.parts import Part, make_part

# Versions of the output:
# 1: all domains in one part.
# 2: one part per top-level domain, with examples and languages.
VERSION = 2
MAXIMUM_SHARES = 5  # listed sources per domain, and listed languages
DOMAINS_FILE = "domains.parquet"

_STATISTICS = """
    SELECT $level::BIGINT AS level, (leaf // $span)::BIGINT AS domain, count(*) AS documents,
           sum(tokens)::BIGINT AS tokens, avg(distance::DOUBLE) AS mean_distance,
           quantile_cont(distance::DOUBLE, [0.05, 0.25, 0.5, 0.75, 0.95]) AS distance_quantiles
    FROM documents GROUP BY ALL ORDER BY domain"""
_NAMES = """
    CREATE TEMP TABLE names AS
        SELECT leaf, 'source' AS kind, nullif(source, '') AS name, count(*) AS n
        FROM documents GROUP BY ALL
        UNION ALL
        SELECT leaf, 'language', nullif(language, ''), count(*) FROM documents GROUP BY ALL"""
_LARGEST = """
    SELECT list({name: name, share: n / documents} ORDER BY n DESC, name)[1:$most] AS shares
    FROM (SELECT leaf // $span AS domain, name, sum(n) AS n,
                 sum(sum(n)) OVER (PARTITION BY domain) AS documents
          FROM names WHERE kind = $kind GROUP BY domain, name)
    GROUP BY domain ORDER BY domain"""


def describe_part(stored: Sequence[Part], folder: Folder, levels: Levels) -> Part:
    """Describe the domains of one top-level domain, whose documents are in `stored`.

    After additions, `stored` has several parts. Writes `domains.parquet` (the columns of
    tables.DOMAINS that need no other domain), `examples.parquet` (tables.EXAMPLES), both for
    domains with documents only, and the word counts of `pipeline.describe.terms`. Memory: 30 bytes
    per document, the texts of one row group, and the openings for the terms (about 50 MB).
    """

    def make(out: Path) -> Account:
        files = stored_files(stored) or [_no_documents(out)]
        sample = LeafSample(files, levels)
        shown = sample.examples(levels)
        pq.write_table(shown, out / examples.EXAMPLES_FILE, compression="zstd")
        pq.write_table(
            pa.concat_tables(_statistics(files, shown, levels)),
            out / DOMAINS_FILE,
            compression="zstd",
        )
        terms.count_words(sample.openings(), np.unique(sample.leaf), out)
        kept = total(part.account for part in stored).kept
        return Account(read=kept, kept=kept)

    return make_part(
        folder,
        fingerprint(
            "describe", VERSION, levels.granularities, [part.fingerprint for part in stored]
        ),
        make,
    )


def stored_files(parts: Sequence[Part]) -> list[str]:
    """Return the document files of some stored parts."""
    return [str(file) for part in parts for file in part.matching("documents*.parquet")]


def _no_documents(folder: Path) -> str:
    """Write a file without rows, for an empty domain, and return its name."""
    file = folder / "documents.parquet"
    pq.write_table(tables.DOCUMENTS.empty_table(), file)
    return str(file)


def _statistics(files: Sequence[str], shown: pa.Table, levels: Levels) -> Iterator[pa.Table]:
    with duckdb.connect() as connection:
        # With one thread floats are added in one order, so the output has the same bytes each
        # time. Several parts run at once.
        connection.execute("SET threads = 1")
        documents = connection.read_parquet(
            [glob.escape(file) for file in files], hive_partitioning=False
        )
        documents.create_view("documents")
        connection.execute(_NAMES)
        for k in levels.granularities:
            place = {"span": levels.span(k)}
            table = connection.sql(_STATISTICS, params={**place, "level": k}).to_arrow_table()
            for column, kind in (("top_sources", "source"), ("languages", "language")):
                largest = connection.sql(
                    _LARGEST, params={**place, "kind": kind, "most": MAXIMUM_SHARES}
                ).to_arrow_table()
                table = table.append_column(column, largest["shares"])
            of_level = shown.filter(pc.equal(shown["level"], k))
            for kind in examples.EXAMPLE_KINDS:
                of_kind = of_level.filter(pc.equal(of_level["kind"], kind))
                starts = np.searchsorted(of_kind["domain"].to_numpy(), table["domain"].to_numpy())
                lists = pa.ListArray.from_arrays(
                    np.r_[starts, of_kind.num_rows].astype(np.int32),
                    of_kind["doc_id"].combine_chunks(),
                )
                table = table.append_column(kind, lists)
            yield table
