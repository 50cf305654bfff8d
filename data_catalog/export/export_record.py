"""The file that describes an export of documents: `export.json`."""

from typing import Literal

from data_catalog.export.shards import Format
from data_catalog.settings import Settings

EXPORT = "export.json"


class Selection(Settings):
    """A selection of documents, as stored in `export.json`."""

    level: int | None = None
    """Level of `domains`."""
    domains: tuple[int, ...] = ()
    """Domains to export. If empty, all."""
    where: str | None = None
    """SQL condition over the columns of the view `documents`."""
    weights: str | None = None
    """Folder of the run whose weights are used."""
    tokens: int | None = None
    """Number of tokens to sample by weights."""
    seed: int = 0
    """Seed of the sample and of its order."""
    split: Literal["train", "heldout", "all"] = "train"
    """Split to export."""
    columns: tuple[str, ...] = ("doc_id", "text")
    """Columns of the view `documents`."""
    format: Format = "jsonl"
    """Format of the shards."""
    shard_megabytes: int = 256
    """Approximate size of a shard, in megabytes of documents in memory."""


class ExportedShard(Settings):
    """A file of an export."""

    documents: int
    """Number of documents."""
    tokens: int
    """Number of tokens."""
    bytes: int
    """Size of the file."""
    sha256: str
    """SHA-256 of the file."""


class DomainShare(Settings):
    """Contribution of a domain to an export by weights."""

    domain: int
    """Number of the domain."""
    weight: float
    """Requested share of the tokens."""
    tokens: int
    """Number of tokens in the export."""
    exhausted: bool
    """True if the export contains all training documents of the domain and its weight requested
    more. Other domains supply the rest."""


class Exported(Settings):
    """Contents of an export: `export.json` in its folder, which is written last."""

    catalog: str
    """Fingerprint of the catalog."""
    version: int
    """Version of the catalog."""
    selection: Selection
    """Selected documents."""
    fingerprint: str
    """Hash of the catalog, version and selection. An export with the same hash is not repeated."""
    documents: int
    """Number of documents."""
    tokens: int
    """Number of tokens."""
    shards: dict[str, ExportedShard]
    """Files by name."""
    level: int | None = None
    """Level of `shares`."""
    shares: tuple[DomainShare, ...] = ()
    """Contribution per domain, for an export by weights."""
