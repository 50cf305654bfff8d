"""Descriptions of tables and columns, and the columns that several tables share."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import pyarrow as pa


class Column(NamedTuple):
    """A column of a table."""

    name: str
    type: pa.DataType
    description: str


@dataclass(frozen=True)
class Table:
    """A table's description and columns, in order."""

    description: str
    columns: Sequence[Column]

    @property
    def schema(self) -> pa.Schema:
        """The Arrow schema. It has no metadata."""
        return pa.schema([(column.name, column.type) for column in self.columns])


# Quality signals of a document by name. Signals of lines are stored as their mean over the lines.
# Signals that a source lacks are absent.
SIGNALS_TYPE = pa.map_(pa.string(), pa.float64())
SHARES_TYPE = pa.list_(pa.struct([("name", pa.string()), ("share", pa.float64())]))

DOC_ID = Column(
    "doc_id", pa.string(), "Identifier of the record. If it has none: file and row number."
)
ID_INT = Column(
    "id_int",
    pa.uint64(),
    "First 8 bytes of sha1(doc_id), little-endian. Can exceed 2**63 - 1.",
)
URL = Column("url", pa.string(), "Address of the document. Null if unknown.")
SOURCE_COLUMN = Column("source", pa.string(), "Site, package or dataset that the text comes from.")
LANGUAGE = Column("language", pa.string(), "Language, as stated by the source.")
DIGEST = Column("digest", pa.string(), "Hash of the text, for finding exact copies.")
TEXT_COLUMN = Column("text", pa.large_string(), "Text of the document.")
CHARACTERS = Column("characters", pa.int64(), "Length of the text in characters.")
TOTAL_CHARACTERS = Column("characters", pa.int64(), "Total length of their texts in characters.")
SIGNALS_COLUMN = Column("signals", SIGNALS_TYPE, "Quality signals, shipped or computed.")
TOKENS_COLUMN = Column("tokens", pa.int64(), "Number of tokens, including the final end-of-text.")
LEAF = Column("leaf", pa.uint32(), "Domain of the finest level.")
DISTANCE = Column(
    "distance",
    pa.float32(),
    "Squared Euclidean distance to the leaf's centroid, both of unit length: 2 - 2 cos.",
)
SPLIT = Column("split", pa.string(), "train or heldout, by hash of the identifier.")
LEVEL = Column("level", pa.int64(), "Granularity: number of domains of the level.")
DOMAIN = Column("domain", pa.int64(), "Number of the domain in its level, from 0.")
