"""Arrow schemas of the tables that stages exchange and that a catalog keeps.

`TABLES` describes each table and its columns. The schema of each is also a name of this module.
"""

import pyarrow as pa

from data_catalog.format import columns
from data_catalog.format.columns import Column, Table
from data_catalog.format.target_tables import TARGET_TABLES

TABLES = {
    **TARGET_TABLES,
    "SOURCE": Table(
        "One row per readable record, as written by the source stage.",
        [
            columns.DOC_ID,
            columns.ID_INT,
            columns.URL,
            columns.SOURCE_COLUMN,
            columns.LANGUAGE,
            columns.DIGEST,
            columns.TEXT_COLUMN,
            Column(
                "signals", columns.SIGNALS_TYPE, "Shipped quality signals, named as in the source."
            ),
            Column(
                "shipped_duplicate",
                pa.bool_(),
                "True if the corpus's own duplicate files list the document.",
            ),
        ],
    ),
    "QUARANTINE": Table(
        "One row per unreadable record, damaged file, kind of note, and document without a result.",
        [
            Column("file", pa.string(), "File that contains the record."),
            Column("row", pa.int64(), "Row number, from 0. Null for a whole file or a doc_id."),
            Column("reason", pa.string(), "Kind of damage."),
            Column("detail", pa.string(), "Explanation."),
            Column(
                "doc_id", pa.string(), "Document that a later stage could not process, or null."
            ),
            Column("stage", pa.string(), "source, embed, sort or targets. Null in older catalogs."),
        ],
    ),
    "MEASURED": Table(
        "One row per document of a SOURCE table, in the same order and including dropped documents."
        " Contains everything that rules use, so that other rules can be tried without the text.",
        [columns.ID_INT, columns.SOURCE_COLUMN, columns.CHARACTERS, columns.SIGNALS_COLUMN],
    ),
    "VERDICTS": Table(
        "One row per document of a SOURCE table, in the same order, as written by the stages that"
        " drop documents: quality, dedup, embed, semantic and sort.",
        [
            columns.ID_INT,
            columns.CHARACTERS,
            Column("failed_rules", pa.uint64(), "Bit i is set if rule i of the preset fails."),
            Column(
                "reason",
                pa.string(),
                "First rule or dedup tier that dropped the document, or no_embedding or no_tokens"
                " if a stage could not process it. Null if it is kept.",
            ),
        ],
    ),
    "SIGNATURES": Table(
        "One row per document of a SOURCE table, in the same order: the MinHash bands that near"
        " copies share.",
        [
            Column(
                "bands",
                pa.list_(pa.binary()),
                "Null for texts under 13 words. See pipeline/dedup/signatures.py.",
            ),
        ],
    ),
    "NEAR": Table(
        "One row per kept document that resembles an earlier document of its domain, one that the"
        " tier `semantic` keeps. Documents are identified by the number of their part in the build"
        " and their row among its kept documents.",
        [
            Column("part", pa.uint32(), "Part of the later document."),
            Column("row", pa.int64(), "Row of the later document."),
            Column("cosine", pa.float32(), "Largest cosine to an earlier document that stays."),
            Column("nearest_part", pa.uint32(), "Part of the first document with that cosine."),
            Column("nearest_row", pa.int64(), "Row of that document."),
        ],
    ),
    "REMOVED": Table(
        "Documents that each rule and dedup tier removed, and those that a stage after them could"
        " not process, by source. Zeros are not stored.",
        [
            Column("reason", pa.string(), "Rule, dedup tier, no_embedding or no_tokens."),
            columns.SOURCE_COLUMN,
            Column("rows", pa.int64(), "Number of documents. Files, lines or fields for notes."),
            columns.TOTAL_CHARACTERS,
            Column("share", pa.float64(), "Share of the rows that were read from this source."),
        ],
    ),
    "DOCUMENTS": Table(
        "One row per kept document, sorted by leaf, then train before heldout, then id_int. Stored"
        " in the catalog.",
        [
            columns.DOC_ID,
            columns.ID_INT,
            columns.URL,
            columns.SOURCE_COLUMN,
            columns.LANGUAGE,
            columns.DIGEST,
            columns.TEXT_COLUMN,
            columns.CHARACTERS,
            columns.TOKENS_COLUMN,
            columns.SIGNALS_COLUMN,
            Column(
                "failed_rules", pa.uint64(), "Always 0: documents that fail a rule are dropped."
            ),
            columns.LEAF,
            columns.DISTANCE,
            columns.SPLIT,
        ],
    ),
    "OFFSETS": Table(
        "One row per extent: neighbouring rows of one leaf and split in one file.",
        [
            columns.LEAF,
            Column("split", pa.string(), "train or heldout."),
            Column(
                "top",
                pa.uint32(),
                "Top-level domain. Together with part, it names the files"
                " documents/top=TTTT/part-PPPP.parquet and tokens/top=TTTT/part-PPPP.arrow.",
            ),
            Column("part", pa.uint32(), "Number of the file. See top."),
            Column("first_row", pa.int64(), "First row in the file of documents, from 0."),
            Column("rows", pa.int64(), "Number of documents."),
            Column("first_token", pa.int64(), "First token in the file of tokens, from 0."),
            Column(
                "tokens",
                pa.int64(),
                "Number of tokens, including the final end-of-text of each document.",
            ),
        ],
    ),
    "DOMAINS": Table(
        "One row per domain and level.",
        [
            columns.LEVEL,
            columns.DOMAIN,
            Column("parent", pa.int64(), "Domain one level up. Null at the top level."),
            Column("documents", pa.int64(), "Number of documents in both splits."),
            Column("tokens", pa.int64(), "Number of tokens in both splits."),
            Column(
                "radius",
                pa.float64(),
                "Root mean square distance of the documents to the domain's own centroid, all"
                " vectors of unit length. Null if the domain is empty.",
            ),
            Column(
                "mean_distance",
                pa.float64(),
                "Mean of the documents' distance: squared, to the centroid of their leaf.",
            ),
            Column(
                "distance_quantiles",
                pa.list_(pa.float64()),
                "Quantiles of that distance at 5, 25, 50, 75 and 95 %.",
            ),
            Column("terms", pa.list_(pa.string()), "Characteristic terms, highest c-TF-IDF first."),
            Column(
                "nearest",
                pa.list_(pa.string()),
                "doc_id of the documents nearest to their leaf's centroid. See EXAMPLES.",
            ),
            Column("typical", pa.list_(pa.string()), "doc_id of documents at the median distance."),
            Column("boundary", pa.list_(pa.string()), "doc_id of the documents farthest away."),
            Column(
                "top_sources",
                columns.SHARES_TYPE,
                "Sources with their share of the domain's documents, largest first. The name is"
                " null for documents without one.",
            ),
            Column(
                "languages",
                columns.SHARES_TYPE,
                "Languages with their share of the domain's documents, as in top_sources.",
            ),
            Column("flags", pa.list_(pa.string()), "Anomalies. See pipeline/describe/health.py."),
        ],
    ),
    "EXAMPLES": Table(
        "Example documents of each domain, from a random sample of each of its leaves.",
        [
            columns.LEVEL,
            columns.DOMAIN,
            Column(
                "kind",
                pa.string(),
                "nearest, typical (at the median distance) or boundary (farthest), relative to the"
                " leaf's centroid.",
            ),
            Column("rank", pa.int64(), "Rank within its kind. 0 is the best."),
            columns.DOC_ID,
            columns.DISTANCE,
            columns.SOURCE_COLUMN,
            Column(
                "snippet",
                pa.string(),
                "Beginning of the text. Untrusted: must be escaped where it is shown.",
            ),
        ],
    ),
    "HEALTH": Table(
        "Measurements of the tree's quality. One row per level and measure. See"
        " pipeline/describe/health.py.",
        [
            columns.LEVEL,
            Column("measure", pa.string(), "Name of the measure."),
            Column("value", pa.float64(), "Value, in the measure's own unit."),
        ],
    ),
    "ACCOUNTING": Table(
        "Accounts of all stages. One row per stage, outcome and reason. For each stage,"
        " read = kept + dropped + failed. What is noted lost no document.",
        [
            Column(
                "stage",
                pa.string(),
                "source, quality, dedup, embed, assign, semantic, sort or shard.",
            ),
            Column("outcome", pa.string(), "read, kept, dropped, failed or noted."),
            Column("reason", pa.string(), "Rule, dedup tier, kind of damage or kind of note."),
            Column("rows", pa.int64(), "Number of documents."),
            columns.TOTAL_CHARACTERS,
            Column(
                "tokens",
                pa.int64(),
                "Number of tokens. 0 before the sort stage, which computes them.",
            ),
        ],
    ),
    "WEIGHTS": Table(
        "Weight log of a training run. One row per interval between updates. Lists follow the order"
        " of the run's basis, which config.json names.",
        [
            Column(
                "stage",
                pa.int64(),
                "Number of the interval, from 0. Each has update_every_steps steps.",
            ),
            Column(
                "first_sequence",
                pa.int64(),
                "Number, over the whole run, of the first sequence sampled with these weights.",
            ),
            Column("alpha", pa.list_(pa.float64()), "Weights of the mixer."),
            Column(
                "sampling",
                pa.list_(pa.float64()),
                "Weights used for sampling: the moving average of alpha.",
            ),
            Column(
                "scores",
                pa.list_(pa.float64()),
                "Scores that the weights were computed from. Null for mixers that do not learn and"
                " for interval 0.",
            ),
        ],
    ),
}

SOURCE = TABLES["SOURCE"].schema
QUARANTINE = TABLES["QUARANTINE"].schema
MEASURED = TABLES["MEASURED"].schema
VERDICTS = TABLES["VERDICTS"].schema
SIGNATURES = TABLES["SIGNATURES"].schema
NEAR = TABLES["NEAR"].schema
REMOVED = TABLES["REMOVED"].schema
DOCUMENTS = TABLES["DOCUMENTS"].schema
TARGET = TABLES["TARGET"].schema
OFFSETS = TABLES["OFFSETS"].schema
DISTRIBUTIONS = TABLES["DISTRIBUTIONS"].schema
TARGETS = TABLES["TARGETS"].schema
LEAKAGE = TABLES["LEAKAGE"].schema
DOMAINS = TABLES["DOMAINS"].schema
EXAMPLES = TABLES["EXAMPLES"].schema
HEALTH = TABLES["HEALTH"].schema
ACCOUNTING = TABLES["ACCOUNTING"].schema
WEIGHTS = TABLES["WEIGHTS"].schema

# Sort keys of OFFSETS. Descending splits put train before heldout.
OFFSETS_ORDER = [("leaf", "ascending"), ("split", "descending"), ("part", "ascending")]
