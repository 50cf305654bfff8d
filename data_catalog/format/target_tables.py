"""Tables on targets: their documents, distributions and leakage. See `tables`."""

import pyarrow as pa

from data_catalog.format import columns
from data_catalog.format.columns import Column, Table

TARGET_TABLES = {
    "TARGET": Table(
        "One row per document of a target.",
        [
            columns.DOC_ID,
            columns.ID_INT,
            columns.TEXT_COLUMN,
            Column("split", pa.string(), "align, validation or test."),
            columns.LEAF,
            columns.DISTANCE,
            columns.TOKENS_COLUMN,
        ],
    ),
    "DISTRIBUTIONS": Table(
        "Distribution of document sets over domains. One row per set, kind, level and domain with"
        " a weight.",
        [
            Column("name", pa.string(), "Target, natural or uniform."),
            Column("kind", pa.string(), "hard, distance, natural or uniform."),
            columns.LEVEL,
            columns.DOMAIN,
            Column(
                "weight",
                pa.float64(),
                "Weight of the domain. Only positive weights are stored. The weights of each (name,"
                " kind, level) sum to 1.",
            ),
        ],
    ),
    "TARGETS": Table(
        "One row per target of a catalog.",
        [
            Column("name", pa.string(), "Name of the target and of its folder below targets/."),
            Column("documents", pa.int64(), "Number of documents in all splits."),
            Column("align", pa.int64(), "Number of documents in the align split."),
            Column("validation", pa.int64(), "Number of documents in the validation split."),
            Column("test", pa.int64(), "Number of documents in the test split."),
            Column("tokens", pa.int64(), "Number of tokens in all splits."),
            Column(
                "mean_distance",
                pa.float64(),
                "Mean squared distance of the documents to the centroids of their leaves.",
            ),
            Column(
                "out_of_distribution",
                pa.float64(),
                "Share of documents farther from their leaf's centroid than 95 % of the leaf's own"
                " documents. 0.05 is expected for texts like the corpus.",
            ),
            Column(
                "effective_domains",
                pa.list_(pa.float64()),
                "exp of the entropy of the hard distribution, per level, coarsest first.",
            ),
            Column(
                "main_domains",
                pa.list_(pa.int64()),
                "Domains of the finest level with the largest weights, largest first.",
            ),
        ],
    ),
    "LEAKAGE": Table(
        "One row per document of a target: the part of its distinct 13-grams that one other"
        " document has too. A 13-gram is a run of 13 words, without punctuation and case. A shorter"
        " text has one.",
        [
            Column("name", pa.string(), "Name of the target."),
            Column("doc_id", pa.string(), "Identifier of the document in the target."),
            Column("split", pa.string(), "align, validation or test."),
            Column("grams", pa.int64(), "Number of its distinct 13-grams."),
            Column(
                "in_corpus",
                pa.float64(),
                "Largest share of them in one train document of the corpus.",
            ),
            Column(
                "in_align",
                pa.float64(),
                "Largest share of them in one document of the target's align split. Null in that"
                " split.",
            ),
        ],
    ),
}
