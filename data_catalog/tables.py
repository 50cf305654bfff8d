"""Arrow schemas of the tables that stages hand on and that a catalog keeps."""

import pyarrow as pa

# Document-level quality signals by name; a line-level signal is kept as its mean over the lines. A name that a source lacks is absent.
SIGNALS = pa.map_(pa.string(), pa.float64())

# One row a readable record, as the source stage hands it on.
SOURCE = pa.schema(
    [
        ("doc_id", pa.string()),
        ("id_int", pa.uint64()),  # first 8 bytes of sha1(doc_id), little-endian: can exceed 2**63 - 1
        ("url", pa.string()),
        ("source", pa.string()),  # site, package or data set the text came from
        ("language", pa.string()),
        ("digest", pa.string()),  # of the text, to find exact copies
        ("text", pa.large_string()),
        ("signals", SIGNALS),
        ("shipped_duplicate", pa.bool_()),  # listed by the corpus's own duplicate files
    ]
)

# One row a record that could not be read.
QUARANTINE = pa.schema([("file", pa.string()), ("row", pa.int64()), ("reason", pa.string()), ("detail", pa.string())])

# One row a document of a SOURCE table, same order, as quality and dedup hand it on.
VERDICTS = pa.schema(
    [
        ("id_int", pa.uint64()),
        ("characters", pa.int64()),
        ("failed_rules", pa.uint64()),  # bit i: fails rule i of the preset
        ("reason", pa.string()),  # null: kept; else the first rule or dedup tier that dropped it
    ]
)

# One row a kept document, sorted by leaf, then train before heldout, then id_int: what a catalog keeps.
DOCUMENTS = pa.schema(
    [
        ("doc_id", pa.string()),
        ("id_int", pa.uint64()),
        ("url", pa.string()),
        ("source", pa.string()),
        ("language", pa.string()),
        ("text", pa.large_string()),
        ("characters", pa.int64()),
        ("tokens", pa.int64()),  # with the closing end-of-text
        ("signals", SIGNALS),
        ("failed_rules", pa.uint64()),
        ("leaf", pa.uint32()),
        ("distance", pa.float32()),  # squared Euclidean distance to the leaf's centroid, both of unit length: 2 - 2 cos
        ("split", pa.string()),  # train | heldout, by hash of the id
    ]
)

# One row a document of a target set.
TARGET = pa.schema(
    [
        ("doc_id", pa.string()),
        ("id_int", pa.uint64()),
        ("text", pa.large_string()),
        ("split", pa.string()),  # align | validation | test; see pipeline/targets.py
        ("leaf", pa.uint32()),
        ("distance", pa.float32()),
        ("tokens", pa.int64()),
    ]
)

# One row a (leaf, split) that holds documents: where its rows and tokens are.
OFFSETS = pa.schema(
    [
        ("leaf", pa.uint32()),
        ("split", pa.string()),
        ("top", pa.uint32()),  # names the files documents/top=TTTT/ and tokens/top=TTTT.arrow
        ("first_row", pa.int64()),
        ("rows", pa.int64()),
        ("first_token", pa.int64()),
        ("tokens", pa.int64()),
    ]
)

DISTRIBUTIONS = pa.schema(
    [
        ("name", pa.string()),
        ("kind", pa.string()),  # hard | distance | natural | uniform
        ("level", pa.int64()),  # granularity
        ("domain", pa.int64()),
        ("weight", pa.float64()),  # only weights > 0 are stored; each (name, kind, level) sums to 1
    ]
)

DOMAINS = pa.schema(
    [
        ("level", pa.int64()),
        ("domain", pa.int64()),
        ("parent", pa.int64()),  # domain one level up; null at the top
        ("documents", pa.int64()),
        ("tokens", pa.int64()),
        ("mean_distance", pa.float64()),
        ("distance_quantiles", pa.list_(pa.float64())),  # 5, 25, 50, 75, 95 %
        ("terms", pa.list_(pa.string())),  # highest c-TF-IDF first
        ("exemplars", pa.list_(pa.string())),  # doc_ids nearest to the centroid
        ("top_sources", pa.list_(pa.string())),
        ("flags", pa.list_(pa.string())),
    ]
)

ACCOUNTING = pa.schema(
    [
        ("stage", pa.string()),
        ("outcome", pa.string()),  # read | kept | dropped | failed
        ("reason", pa.string()),
        ("rows", pa.int64()),
        ("characters", pa.int64()),
        ("tokens", pa.int64()),  # 0 before the sort stage, which makes them
    ]
)

# The weight log of a run: one row an update. Lists follow the run's basis, named in its config.json.
WEIGHTS = pa.schema(
    [
        ("stage", pa.int64()),  # 0, 1, ...: each holds update_every_steps steps
        ("first_sequence", pa.int64()),  # global number of the first sequence drawn with these weights
        ("alpha", pa.list_(pa.float64())),  # the recursion's own weights
        ("sampling", pa.list_(pa.float64())),  # what sampling uses: the moving average of alpha
        ("scores", pa.list_(pa.float64())),  # alignments they were computed from; null for a static mixer and stage 0
    ]
)
