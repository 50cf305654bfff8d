"""Arrow schemas of the tables that stages hand on and that a catalog keeps."""

import pyarrow as pa

# Document-level quality signals by name; a line-level signal is kept as its mean over the lines. A name that a source lacks is absent.
SIGNALS = pa.map_(pa.string(), pa.float64())

# One row a readable record, as the source stage hands it on.
SOURCE = pa.schema(
    [
        ("doc_id", pa.string()),  # the record's own, or file and row
        (
            "id_int",
            pa.uint64(),
        ),  # first 8 bytes of sha1(doc_id), little-endian: can exceed 2**63 - 1
        ("url", pa.string()),  # where the document is from; null: not known
        ("source", pa.string()),  # site, package or data set the text came from
        ("language", pa.string()),  # as the source says
        ("digest", pa.string()),  # of the text, to find exact copies
        ("text", pa.large_string()),  # the document
        ("signals", SIGNALS),  # shipped ones, as the source names them
        ("shipped_duplicate", pa.bool_()),  # listed by the corpus's own duplicate files
    ]
)

# One row a record that could not be read.
QUARANTINE = pa.schema(
    [
        ("file", pa.string()),  # that it is in
        ("row", pa.int64()),  # from 0; null for what befell a whole file
        ("reason", pa.string()),  # kind of damage
        ("detail", pa.string()),  # in words
    ]
)

# One row a document of a SOURCE table, same order, dropped ones too: all that rules look at, so that others can be tried without the text.
MEASURED = pa.schema(
    [
        ("id_int", pa.uint64()),  # as in SOURCE
        ("source", pa.string()),  # as in SOURCE
        ("characters", pa.int64()),  # length of the text
        ("signals", SIGNALS),  # shipped, and computed where none were
    ]
)

# One row a document of a SOURCE table, same order, as quality and dedup hand it on.
VERDICTS = pa.schema(
    [
        ("id_int", pa.uint64()),  # as in SOURCE
        ("characters", pa.int64()),  # length of the text
        ("failed_rules", pa.uint64()),  # bit i: fails rule i of the preset
        ("reason", pa.string()),  # null: kept; else the first rule or dedup tier that dropped it
    ]
)

# One row a document of a SOURCE table, same order: the MinHash bands that near copies share.
SIGNATURES = pa.schema(
    [
        ("bands", pa.list_(pa.binary())),  # null under 13 words; see pipeline/dedup/signatures.py
    ]
)

# One row a kept document that resembles an earlier one of its domain; a place is a part's number in the build and a row among its kept.
NEAR = pa.schema(
    [
        ("part", pa.uint32()),  # of the later document
        ("row", pa.int64()),  # of the later document
        ("cosine", pa.float32()),  # the largest to any earlier document
        ("nearest_part", pa.uint32()),  # of the first document with that cosine
        ("nearest_row", pa.int64()),  # of the same
    ]
)

# What each rule and dedup tier took from each source; only what is not zero.
REMOVED = pa.schema(
    [
        ("reason", pa.string()),  # rule or tier
        ("source", pa.string()),  # as in SOURCE
        ("rows", pa.int64()),  # documents
        ("characters", pa.int64()),  # length of their texts
        ("share", pa.float64()),  # of that source's rows as read
    ]
)

# One row a kept document, sorted by leaf, then train before heldout, then id_int: what a catalog keeps.
DOCUMENTS = pa.schema(
    [
        ("doc_id", pa.string()),  # as in SOURCE
        ("id_int", pa.uint64()),  # as in SOURCE
        ("url", pa.string()),  # as in SOURCE
        ("source", pa.string()),  # as in SOURCE
        ("language", pa.string()),  # as in SOURCE
        ("digest", pa.string()),  # of the text: finds copies among later additions
        ("text", pa.large_string()),  # the document
        ("characters", pa.int64()),  # length of the text
        ("tokens", pa.int64()),  # with the closing end-of-text
        ("signals", SIGNALS),  # as in MEASURED
        ("failed_rules", pa.uint64()),  # 0: only documents that fail none are kept
        ("leaf", pa.uint32()),  # domain of the finest level
        (
            "distance",
            pa.float32(),
        ),  # squared Euclidean distance to the leaf's centroid, both of unit length: 2 - 2 cos
        ("split", pa.string()),  # train | heldout, by hash of the id
    ]
)

# One row a document of a target set.
TARGET = pa.schema(
    [
        ("doc_id", pa.string()),  # as in SOURCE
        ("id_int", pa.uint64()),  # as in SOURCE
        ("text", pa.large_string()),  # the document
        ("split", pa.string()),  # align | validation | test; see pipeline/source/targets.py
        ("leaf", pa.uint32()),  # domain of the finest level
        ("distance", pa.float32()),  # as in DOCUMENTS
        ("tokens", pa.int64()),  # with the closing end-of-text
    ]
)

# One row an extent: neighbouring rows of one (leaf, split) in one file.
OFFSETS = pa.schema(
    [
        ("leaf", pa.uint32()),  # domain of the finest level
        ("split", pa.string()),  # train | heldout
        (
            "top",
            pa.uint32(),
        ),  # with part, names the files documents/top=TTTT/part-PPPP.parquet and tokens/top=TTTT/part-PPPP.arrow
        ("part", pa.uint32()),  # see top
        ("first_row", pa.int64()),  # in the file of documents, from 0
        ("rows", pa.int64()),  # documents
        ("first_token", pa.int64()),  # in the file of tokens, from 0
        ("tokens", pa.int64()),  # with the closing ends-of-text
    ]
)

OFFSETS_ORDER = [
    ("leaf", "ascending"),
    ("split", "descending"),
    ("part", "ascending"),
]  # train before heldout

# How sets of documents fall into the domains: one row a set, kind, level and domain with weight.
DISTRIBUTIONS = pa.schema(
    [
        ("name", pa.string()),  # a target, natural or uniform
        ("kind", pa.string()),  # hard | distance | natural | uniform
        ("level", pa.int64()),  # granularity
        ("domain", pa.int64()),  # of that level, from 0
        ("weight", pa.float64()),  # only weights > 0 are stored; each (name, kind, level) sums to 1
    ]
)

# One row a target set of a catalog.
TARGETS = pa.schema(
    [
        ("name", pa.string()),  # its folder below targets/
        ("documents", pa.int64()),  # of all splits
        ("align", pa.int64()),  # of the documents, by split
        ("validation", pa.int64()),  # see align
        ("test", pa.int64()),  # see align
        ("tokens", pa.int64()),  # of all splits
        ("mean_distance", pa.float64()),  # to the leaves' centroids, as in DOMAINS
        (
            "out_of_distribution",
            pa.float64(),
        ),  # share farther from its leaf's centroid than 95 % of the leaf's documents: 0.05 is usual
        (
            "effective_domains",
            pa.list_(pa.float64()),
        ),  # exp of the hard distribution's entropy, coarsest level first
        ("main_domains", pa.list_(pa.int64())),  # of the finest level, with the most weight first
    ]
)

_SHARES = pa.list_(
    pa.struct([("name", pa.string()), ("share", pa.float64())])
)  # of the domain's documents, largest first

# One row a domain of a level.
DOMAINS = pa.schema(
    [
        ("level", pa.int64()),  # granularity
        ("domain", pa.int64()),  # from 0
        ("parent", pa.int64()),  # domain one level up; null at the top
        ("documents", pa.int64()),  # of both splits
        ("tokens", pa.int64()),  # of both splits
        (
            "radius",
            pa.float64(),
        ),  # root mean square distance to the domain's own centroid, all vectors of unit length; null: empty
        (
            "mean_distance",
            pa.float64(),
        ),  # of DOCUMENTS.distance: squared, to the centroid of the document's leaf
        ("distance_quantiles", pa.list_(pa.float64())),  # of the same: 5, 25, 50, 75, 95 %
        ("terms", pa.list_(pa.string())),  # highest c-TF-IDF first
        ("nearest", pa.list_(pa.string())),  # doc_ids; see EXAMPLES
        ("typical", pa.list_(pa.string())),  # at the median distance
        ("boundary", pa.list_(pa.string())),  # farthest from it
        ("top_sources", _SHARES),  # name null: documents that name none
        ("languages", _SHARES),  # as top_sources
        ("flags", pa.list_(pa.string())),  # what looks wrong; see pipeline/describe/health.py
    ]
)

# Some documents of each domain, from a random sample of each of its leaves.
EXAMPLES = pa.schema(
    [
        ("level", pa.int64()),  # granularity
        ("domain", pa.int64()),  # of that level, from 0
        (
            "kind",
            pa.string(),
        ),  # nearest, typical (at the median distance) or boundary (farthest), of its leaf
        ("rank", pa.int64()),  # 0: the best of its kind
        ("doc_id", pa.string()),  # as in DOCUMENTS
        ("distance", pa.float32()),  # as in DOCUMENTS
        ("source", pa.string()),  # as in DOCUMENTS
        ("snippet", pa.string()),  # how the text begins: untrusted, to be escaped where it is shown
    ]
)

# One row a level and measure; see pipeline/describe/health.py for what they are.
HEALTH = pa.schema(
    [
        ("level", pa.int64()),  # granularity
        ("measure", pa.string()),  # its name
        ("value", pa.float64()),  # in the measure's own unit
    ]
)

# The books, one row a stage, outcome and reason: read = kept + dropped + failed.
ACCOUNTING = pa.schema(
    [
        (
            "stage",
            pa.string(),
        ),  # source | quality | dedup | embed | assign | semantic | sort | shard
        ("outcome", pa.string()),  # read | kept | dropped | failed
        ("reason", pa.string()),  # rule, tier or kind of damage
        ("rows", pa.int64()),  # documents
        ("characters", pa.int64()),  # length of their texts
        ("tokens", pa.int64()),  # 0 before the sort stage, which makes them
    ]
)

# The weight log of a run: one row an update. Lists follow the run's basis, named in its config.json.
WEIGHTS = pa.schema(
    [
        ("stage", pa.int64()),  # 0, 1, ...: each holds update_every_steps steps
        (
            "first_sequence",
            pa.int64(),
        ),  # global number of the first sequence drawn with these weights
        ("alpha", pa.list_(pa.float64())),  # the recursion's own weights
        ("sampling", pa.list_(pa.float64())),  # what sampling uses: the moving average of alpha
        (
            "scores",
            pa.list_(pa.float64()),
        ),  # alignments they were computed from; null for a static mixer and stage 0
    ]
)
