"""Configuration of a catalog build and of an addition to a catalog."""

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from data_catalog.errors import UserError
from data_catalog.format.layout import Levels
from data_catalog.format.manifest import NAME
from data_catalog.settings import FolderOrName, FolderPath, LocalPath, Settings
from pipeline.location import Location, folder_names
from pipeline.source.config import (
    AnySource,
    Columns,
    Dataset,
    Jsonl,
    Parquet,
    PythonDocs,
    Rpv2,
    Share,
    Target,
    Text,
)

__all__ = [
    "Addition",
    "AnySource",
    "Bounds",
    "Build",
    "Cluster",
    "Columns",
    "Dataset",
    "Dedup",
    "Distributions",
    "Embed",
    "Jsonl",
    "Labels",
    "Parquet",
    "PythonDocs",
    "Quality",
    "Rpv2",
    "Share",
    "Store",
    "Target",
    "Text",
    "Tokenizer",
]

Tier = Literal["shipped", "digest", "minhash", "semantic"]
ClusterBackend = Literal["auto", "torch", "faiss", "flash"]


class Bounds(Settings):
    """Overrides of one quality rule. Values that are not given are those of the preset."""

    least: float | None = None
    """Minimum value of the signal. Documents below it fail the rule."""
    most: float | None = None
    """Maximum value of the signal. Documents above it fail the rule."""
    null: Literal["keep", "drop"] | None = None
    """Treatment of documents that lack the signal."""

    @model_validator(mode="after")
    def _says_something(self) -> "Bounds":
        if self.least is None and self.most is None and self.null is None:
            raise ValueError("expected at least one of least, most and null")
        return self


class Quality(Settings):
    """Rules that drop documents by quality signals of their text."""

    preset: Literal["gopher", "together", "c4", "lucie", "none"] = "none"
    """Set of rules. `clustermix quality` prints the rules of a preset."""
    thresholds: dict[str, Bounds] = Field(default_factory=dict)
    """Bounds per rule. They override the preset's."""
    compute: Literal["missing", "never"] = "missing"
    """Computation of quality signals. With `missing`, signals are computed for documents whose
    source ships none. With `never`, only shipped signals are used."""


def _shipped_similarity(value: float) -> float:
    if value not in {0.7, 0.8, 0.9, 1.0}:
        raise ValueError(
            "expected 0.7, 0.8, 0.9 or 1.0, as RedPajama-V2 ships signatures for these"
        )
    return value


class Dedup(Settings):
    """Removal of duplicate documents. Copies of target documents are always removed."""

    tiers: tuple[Tier, ...] = ("digest",)
    """Kinds of duplicates to remove. `shipped`: documents on the corpus's own list of duplicates.
    `digest`: exact copies. `minhash`: near copies, also of target documents. `semantic`: documents
    with similar embeddings. If empty, no duplicates are removed."""
    similarity: Annotated[float, AfterValidator(_shipped_similarity)] = 0.7
    """Jaccard similarity of 13-word shingles above which `minhash` removes a document. One of 0.7,
    0.8, 0.9 and 1.0."""
    cosine: float = Field(default=0.95, ge=0.8, le=1)
    """Minimum cosine of two embeddings in one domain for `semantic` to remove the later one, if the
    earlier one stays."""
    memory_megabytes: int = Field(default=1_024, ge=64)
    """Memory of each part that compares documents, in megabytes. What does not fit is written to
    the folder for temporary files (TMPDIR) of the machine. The result does not depend on it."""


class Embed(Settings):
    """Embedding of texts as vectors."""

    model: FolderOrName = "all-MiniLM-L6-v2"
    """Encoder: the model of an installed package, a folder, or a name on the Hugging Face hub."""
    sha256: str | None = None
    """Expected SHA-256 of `model.safetensors`. If not given, `all-MiniLM-L6-v2` must have its known
    checksum and other models are not checked."""
    max_tokens: int = Field(default=256, ge=8)
    """Maximum number of encoder tokens per document, or per window."""
    precision: Literal["auto", "float32", "bfloat16", "int8"] = "auto"
    """Precision of the encoder. `auto` is bfloat16 if the backend and the processor support it,
    otherwise float32."""
    batch_tokens: int | None = Field(default=None, ge=256)
    """Maximum number of tokens per batch, including padding. If not given, it depends on the
    device."""
    text: Literal["head", "windows"] = "head"
    """Part of a document that is embedded. `head`: its first `max_tokens` tokens. `windows`: the
    mean over its first `windows` windows of `max_tokens` tokens each."""
    windows: int = Field(default=4, ge=2)
    """Maximum number of windows per document."""
    backend: Literal["torch", "onnx", "openvino"] = "torch"
    """Library that runs the encoder."""


class Cluster(Settings):
    """Nested k-means clustering of the vectors into a tree of domains."""

    granularities: tuple[int, ...] = (64, 4096)
    """Number of domains per level, from coarse to fine. Each number must divide the next."""
    unsupported: Literal["cap", "refuse"] = "cap"
    """Treatment of levels with fewer than `min_points` documents per domain. `cap` omits them,
    `refuse` stops the build."""
    min_points: int = Field(default=39, ge=1)
    """Minimum number of documents per domain that a level needs, on average."""
    sample: int | None = Field(default=None, ge=1)
    """Maximum number of vectors used for training. If not given, 64 per domain of the finest level,
    but at least two million."""
    backend: ClusterBackend = "auto"
    """Library that trains and searches the tree. `torch` and `faiss` run on the CPU, or on the
    first GPU (`faiss` with the package `faiss-gpu`). `flash` trains with flash-kmeans on an NVIDIA
    GPU. `auto` is `faiss` if it has a GPU, otherwise `torch`."""
    iterations: int = Field(default=20, ge=1)
    """Iterations of k-means per split."""
    beam: int = Field(default=8, ge=1)
    """Maximum number of branches that an assignment follows down the tree."""
    least_share: float = Field(default=0, ge=0, lt=1)
    """Minimum size of a domain, relative to the mean size of its siblings. Smaller domains are
    merged. 0 means no minimum."""
    most_share: float | None = Field(default=None, gt=1)
    """Maximum size of a domain, relative to the mean size of its siblings. Larger domains are
    split. If not given, there is no maximum."""
    workers: int = Field(default=0, ge=0)
    """Number of sub-trees trained in parallel. 0 means one per core."""

    @model_validator(mode="after")
    def _nested(self) -> "Cluster":
        Levels(self.granularities)
        return self


class Tokenizer(Settings):
    """Tokenizer of the stored tokens."""

    path: FolderOrName | None = None
    """Folder with `tokenizer.json`, or name on the Hugging Face hub. If not given, a byte-level BPE
    tokenizer is trained on the corpus."""
    vocabulary: int = Field(default=8_192, ge=257)
    """Vocabulary size of a trained tokenizer: at least the 256 bytes and end-of-text."""
    sample_characters: int = Field(default=20_000_000, ge=1)
    """Maximum number of characters that the tokenizer is trained on."""


class Store(Settings):
    """Files of the stored documents and tokens."""

    file_megabytes: int = Field(default=256, ge=1, le=1_024)
    """Maximum size of a stored file and of a sorted run, in megabytes of documents in memory."""


class Distributions(Settings):
    """Estimation of basis distributions from documents."""

    smoothing: float = Field(default=0, ge=0)
    """Strength of Dirichlet smoothing of hard histograms toward the parent domain, in documents."""
    temperature: float = Field(default=0.05, gt=0)
    """Softmax temperature of distance histograms. It divides squared distances between unit
    vectors, which are between 0 and 4."""
    nearest: int = Field(default=16, ge=1)
    """Number of nearest centroids per document in distance histograms."""


class Labels(Settings):
    """Known labels of documents, for comparison with the domains."""

    path: LocalPath
    """Parquet or CSV file with a column `doc_id` and a column of labels."""
    column: str
    """Column that holds the labels."""


class Build(Settings):
    """A catalog build."""

    out: FolderPath
    """Folder of the catalog, or its URL in an object store."""
    source: AnySource
    """Corpus to cluster."""
    seed: int = Field(default=0, ge=0)
    """Seed of the samples that the tree and the tokenizer are trained on."""
    quality: Quality = Quality()
    """Rules that drop documents by quality signals of their text."""
    dedup: Dedup = Dedup()
    """Removal of duplicate documents."""
    embed: Embed = Embed()
    """Embedding of texts as vectors."""
    cluster: Cluster = Cluster()
    """Clustering of the vectors into a tree of domains."""
    tokenizer: Tokenizer = Tokenizer()
    """Tokenizer of the stored tokens."""
    store: Store = Store()
    """Files of the stored documents and tokens."""
    distributions: Distributions = Distributions()
    """Estimation of basis distributions from documents."""
    labels: Labels | None = None
    """Known labels, for comparison with the domains."""
    held_out_share: Share = 0.02
    """Share of each domain's documents that is held out to measure the general loss."""
    targets: tuple[Target, ...] = ()
    """Specialised document sets."""
    targets_below: Location | None = None
    """Folder whose subfolders are further targets. Each is named after its folder."""

    def all_targets(self) -> tuple[Target, ...]:
        """Return `targets`, followed by the subfolders of `targets_below` in order of name.

        Hidden subfolders (names starting with a dot or an underscore) are skipped.

        Raises:
            UserError: A subfolder's name cannot be the name of a target.
        """
        root = self.targets_below
        if root is None:
            return self.targets
        names = [name for name in folder_names(root) if not name.startswith((".", "_"))]
        for name in names:
            if not re.fullmatch(NAME, name):
                raise UserError(
                    f"targets_below {root}: the folder {name!r} cannot name a target. Expected "
                    "letters A to Z and a to z, digits, `_`, `.` and `-`. Rename the folder, or "
                    "name it in `targets`, with a name and its path."
                )
        return (*self.targets, *(Target(name=name, path=root / name) for name in names))


class Addition(Settings):
    """Documents and targets that `clustermix add` adds to a finished catalog.

    The encoder, tree, tokenizer and all other settings are those of the catalog.
    """

    source: AnySource | None = None
    """Documents to add. If not given, only targets are added."""
    quality: Quality = Quality()
    """Rules that drop added documents by quality signals of their text."""
    dedup: Dedup = Dedup()
    """Removal of duplicates among the added documents. Copies of documents that the catalog
    contains are removed too."""
    targets: tuple[Target, ...] = ()
    """Further specialised document sets."""
    targets_below: Location | None = None
    """Folder whose subfolders are further targets. Each is named after its folder."""
