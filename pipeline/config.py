"""The config of a build. A field exists because two recipes differ in it."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from data_catalog.format.layout import Levels
from data_catalog.settings import Settings
from pipeline.location import Location

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
Share = Annotated[float, Field(ge=0, lt=1)]
Tier = Literal["shipped", "digest", "minhash", "semantic"]


class Rpv2(Settings):
    """A RedPajama-V2 tree: `documents/SNAPSHOT/SHARD/LANG_BUCKET.json.gz` and its other components, in a folder or at a URL."""

    kind: Literal["rpv2"]  # names this kind of source
    path: Location  # the tree's folder, or its URL
    snapshots: tuple[str, ...] = ()  # empty: all
    languages: tuple[str, ...] = ()  # empty: all
    buckets: tuple[Literal["head", "middle", "tail"], ...] = (
        "head",
        "middle",
        "tail",
    )  # head: most like Wikipedia
    max_shards: int | None = Field(default=None, ge=1)  # the first so many; None: all


class Columns(Settings):
    """Which field of a record is what. A record without the text is quarantined; the others may be missing."""

    text: str = "text"  # field with the text
    id: str = "id"  # without one: the name of the file and the row
    url: str = "url"  # where the document is from
    source: str = "source"  # site, or whatever the accounts and pages should group by


class Jsonl(Settings):
    """JSON lines, `.jsonl` or `.jsonl.gz`, in a file or anywhere below a folder or URL; keys as in `columns`."""

    kind: Literal["jsonl"]  # names this kind of source
    path: Location  # a file, a folder or a URL
    columns: Columns = Columns()  # which key of a line is what


class Parquet(Settings):
    """Parquet, in a file or anywhere below a folder or URL."""

    kind: Literal["parquet"]  # names this kind of source
    path: Location  # a file, a folder or a URL
    columns: Columns = Columns()  # which column is what


Suffix = Annotated[str, Field(pattern=r"^\.[^/]*[a-z0-9]$")]


class Text(Settings):
    """Plain text in UTF-8, `.txt`, `.text`, `.md`, `.rst` or one of them with `.gz`, in a file or anywhere below a folder or URL.

    A file is a document, a long one several. What is hidden (its name, or that of a folder it is in, begins with a dot) is passed over.
    """

    kind: Literal["text"]  # names this kind of source
    path: Location  # a file or a folder
    suffixes: tuple[Suffix, ...] = Field(
        default=(".txt", ".text", ".md", ".rst"), min_length=1
    )  # in lower case; upper case is found too
    piece_characters: int = Field(
        default=8_000, ge=500
    )  # a longer file is cut, at the ends of paragraphs


class Dataset(Settings):
    """A dataset that `datasets` can stream: a name on the Hugging Face hub, or a folder with one."""

    kind: Literal["dataset"] = "dataset"  # names this kind of source
    name: str  # on the hub, or a folder's path
    subset: str | None = None  # its configuration, for a dataset that has several
    split: str = "train"  # which of its splits
    revision: str | None = None  # branch, tag or commit on the hub
    columns: Columns = Columns()  # which column is what


class PythonDocs(Settings):
    """Docstrings and bundled documentation of the installed Python packages and the standard library."""

    kind: Literal["python-docs"]  # names this kind of source
    packages: tuple[
        str, ...
    ] = ()  # empty: a fixed list of large packages, as far as they are installed, and the standard library
    max_documents: int = Field(default=24_000, ge=1)  # most to read
    min_characters: int = 300  # shorter texts are passed over
    held_out_share: Share = 0.3  # of the files of modules that a target names


class Target(Settings):
    """A specialised set, and the basis distributions made from it. Its documents are never part of the corpus."""

    name: Name  # what it is called in the catalog, in trainings and on pages
    path: Location | None = (
        None  # JSON lines or Parquet, else plain text: a file, or a folder searched for them; test* is the test split
    )
    columns: Columns = Columns()  # of JSON lines and Parquet
    dataset: Dataset | None = None  # what `datasets` can stream
    modules: tuple[str, ...] = ()  # for python-docs: module prefixes, e.g. "scipy.stats"
    max_documents: int | None = Field(
        default=None, ge=1
    )  # the first so many of the dataset; None: all

    @model_validator(mode="after")
    def _one_origin(self) -> "Target":
        if self.path is None and self.columns != Columns():  # a form writes every default out
            raise ValueError(
                "columns are of the path's files; a dataset has its own, as dataset.columns"
            )
        if self.dataset is None and self.max_documents is not None:
            raise ValueError("max_documents is for a dataset; of a path, all files are read")
        if sum((self.path is not None, self.dataset is not None, bool(self.modules))) != 1:
            raise ValueError(
                "give one of path (JSON lines, Parquet or plain text), dataset and modules (python-docs)"
            )
        return self


class Bounds(Settings):
    """What replaces a rule's bounds and its meaning of null; what is not given stays as the preset has it."""

    least: float | None = None  # a document with less fails the rule
    most: float | None = None  # a document with more fails the rule
    null: Literal["keep", "drop"] | None = None  # what happens to a document without the signal

    @model_validator(mode="after")
    def _says_something(self) -> "Bounds":
        if self.least is None and self.most is None and self.null is None:
            raise ValueError("give least, most or null")
        return self


class Quality(Settings):
    preset: Literal["gopher", "together", "c4", "lucie", "none"] = (
        "none"  # the rules; `clustermix quality` prints them
    )
    thresholds: dict[str, Bounds] = Field(default_factory=dict)  # by rule, over the preset's
    compute: Literal["missing", "never"] = (
        "missing"  # signals of documents that the source ships none for
    )


def _shipped_similarity(value: float) -> float:
    if value not in {0.7, 0.8, 0.9, 1.0}:
        raise ValueError("expected 0.7, 0.8, 0.9 or 1.0, for which RedPajama-V2 ships signatures")
    return value


class Dedup(Settings):
    """Tiers, in their order of work; empty: every readable document stays."""

    tiers: tuple[Tier, ...] = (
        "digest",
    )  # drop what the corpus's own list names, exact copies, near copies, what is alike as vectors
    similarity: Annotated[float, AfterValidator(_shipped_similarity)] = (
        0.7  # minhash: Jaccard of 13-word shingles that the bands aim at
    )
    cosine: float = Field(
        default=0.95, ge=0.8, le=1
    )  # semantic: of two embeddings in one domain; smaller ones are not kept


class Embed(Settings):
    model: str = (
        "all-MiniLM-L6-v2"  # installed package's model, a folder, or a name on the Hugging Face hub
    )
    sha256: str | None = (
        None  # of model.safetensors; None: the known one for all-MiniLM-L6-v2, unchecked for others
    )
    max_tokens: int = Field(default=256, ge=8)  # of a document, or of each window
    precision: Literal["auto", "float32", "bfloat16", "int8"] = (
        "auto"  # auto: bfloat16 where backend and processor have it
    )
    batch_tokens: int | None = Field(
        default=None, ge=256
    )  # padding included; None: what suits the device
    text: Literal["head", "windows"] = (
        "head"  # the first max_tokens tokens; or the mean over the first windows of that many
    )
    windows: int = Field(default=4, ge=2)  # most windows of a document that are embedded
    backend: Literal["torch", "onnx", "openvino"] = "torch"  # what runs the encoder


class Cluster(Settings):
    granularities: tuple[int, ...] = (
        64,
        4096,
    )  # domains of each level, coarse to fine; each number divides the next
    unsupported: Literal["cap", "refuse"] = (
        "cap"  # a level with fewer than min_points documents a cell
    )
    min_points: int = 39  # documents a cell that a level needs
    sample: int | None = Field(
        default=None, ge=1
    )  # most vectors that training sees; None: 64 a leaf, and at least two million
    iterations: int = 20  # of k-means, in each cell
    beam: int = Field(default=8, ge=1)  # most parents an assignment follows down the tree
    least_share: float = Field(
        default=0, ge=0, lt=1
    )  # of a parent's vectors divided by its children: smaller cells are merged; 0: any
    most_share: float | None = Field(
        default=None, gt=1
    )  # of the same: larger cells are split; None: any
    workers: int = Field(default=0, ge=0)  # sub-trees trained at once; 0: one a core

    @model_validator(mode="after")
    def _nested(self) -> "Cluster":
        Levels(self.granularities)
        return self


class Tokenizer(Settings):
    path: str | None = (
        None  # a folder with tokenizer.json or a hub name; None: train a byte-level BPE on the corpus
    )
    vocabulary: int = 8_192  # token ids of a tokenizer that is trained
    sample_characters: int = 20_000_000  # most characters that its training sees


class Store(Settings):
    file_megabytes: int = Field(
        default=256, ge=1, le=1_024
    )  # of documents in memory: of a file of the store, and of a sorted run


class Distributions(Settings):
    """How basis distributions are made."""

    smoothing: float = Field(
        default=0, ge=0
    )  # documents' worth of the parent domain's shape added to a hard histogram (Dirichlet)
    temperature: float = Field(
        default=0.05, gt=0
    )  # distance form: of squared distances between unit vectors, 0 to 4
    nearest: int = Field(default=16, ge=1)  # distance form: centroids each document looks at


class Labels(Settings):
    """Known labels of documents: Parquet or CSV with `doc_id` and a column to compare the domains with."""

    path: Path  # Parquet or CSV
    column: str  # the one that holds the labels


AnySource = Annotated[
    Rpv2 | Jsonl | Parquet | Text | Dataset | PythonDocs, Field(discriminator="kind")
]


class Build(Settings):
    out: Path  # the catalog's folder
    source: AnySource  # the corpus
    seed: int = 0  # of the tree's and the tokenizer's samples
    quality: Quality = Quality()  # which documents are dropped for what their text is like
    dedup: Dedup = Dedup()  # which copies are dropped
    embed: Embed = Embed()  # how texts become vectors
    cluster: Cluster = Cluster()  # how vectors become a tree of domains
    tokenizer: Tokenizer = Tokenizer()  # how texts become token ids
    store: Store = Store()  # how documents and tokens are laid into files
    distributions: Distributions = Distributions()  # how basis distributions are made
    labels: Labels | None = None  # known labels, to compare the domains with
    held_out_share: Share = 0.02  # of every domain's documents, for the general held-out loss
    targets: tuple[Target, ...] = ()  # specialised sets
    targets_below: Location | None = None  # each folder below it is a target too

    def all_targets(self) -> tuple[Target, ...]:
        below = (
            sorted(path for path in self.targets_below.iterdir() if path.is_dir())
            if self.targets_below
            else []
        )
        return (*self.targets, *(Target(name=path.name, path=path) for path in below))


class Addition(Settings):
    """What `clustermix add` puts into a finished catalog; its encoder, tree, tokenizer and the rest are the catalog's own."""

    source: AnySource | None = None  # None: only targets are added
    quality: Quality = Quality()  # as in a build; of the added documents
    dedup: Dedup = Dedup()  # as in a build; copies of what the catalog holds are dropped too
    targets: tuple[Target, ...] = ()  # further specialised sets
    targets_below: Location | None = None  # each folder below it is a target too
