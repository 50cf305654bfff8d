"""Configuration of the corpus and of the targets: one class per kind of source."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from data_catalog.format.manifest import NAME
from data_catalog.settings import FolderOrName, Settings
from pipeline.location import Location

Name = Annotated[str, Field(pattern=NAME)]
Share = Annotated[float, Field(ge=0, lt=1)]


class Rpv2(Settings):
    """A RedPajama-V2 tree in a folder or at a URL.

    Documents are read from `documents/SNAPSHOT/SHARD/LANG_BUCKET.json.gz`. The other components
    (quality signals, minhash signatures, duplicates) are used where they exist.
    """

    kind: Literal["rpv2"]
    """Kind of source."""
    path: Location
    """Folder or URL of the tree."""
    snapshots: tuple[str, ...] = ()
    """Snapshots to read, such as `2023-14`. If empty, all are read."""
    languages: tuple[str, ...] = ()
    """Languages to read, such as `en`. If empty, all are read."""
    buckets: tuple[Literal["head", "middle", "tail"], ...] = ("head", "middle", "tail")
    """Perplexity buckets to read. Texts in `head` are the most similar to Wikipedia."""
    max_shards: int | None = Field(default=None, ge=1)
    """Maximum number of shards, taken in order. If not given, all shards are read."""


class Columns(Settings):
    """Names of the fields that hold a document's parts.

    A record without a text is quarantined. The other fields may be missing.
    """

    text: str = "text"
    """Field that holds the text."""
    id: str = "id"
    """Field that holds the identifier, text or a number. If missing, the file name and row number
    are used."""
    url: str = "url"
    """Field that holds the document's address."""
    source: str = "source"
    """Field that holds the site, or another origin that accounts and pages group documents by."""


Suffix = Annotated[str, Field(pattern=r"^\.[^/]*[a-z0-9]$")]
JSONL_ENDINGS = (".jsonl", ".ndjson", ".json")


class Jsonl(Settings):
    """JSON lines in a file, or anywhere below a folder or URL.

    By default, files ending in `.jsonl`, `.ndjson` and `.json` are read, each also with `.gz`,
    `.zst` and `.zstd`. Hidden files and folders (names starting with a dot or an underscore) are
    skipped and counted, and so are files with other endings. Linked folders are read once.
    """

    kind: Literal["jsonl"]
    """Kind of source."""
    path: Location
    """File, folder or URL."""
    suffixes: tuple[Suffix, ...] = Field(default=JSONL_ENDINGS, min_length=1)
    """Suffixes of the files to read, in lower case. Case is ignored when files are matched. Each is
    also read with `.gz`, `.zst` and `.zstd`."""
    columns: Columns = Columns()
    """Keys of each line that hold a document's parts."""


class Parquet(Settings):
    """Parquet in a file, or anywhere below a folder or URL.

    Hidden files and folders (names starting with a dot or an underscore) are skipped and counted,
    and so are files with other endings. Linked folders are read once.
    """

    kind: Literal["parquet"]
    """Kind of source."""
    path: Location
    """File, folder or URL."""
    suffixes: tuple[Suffix, ...] = Field(default=(".parquet",), min_length=1)
    """Suffixes of the files to read, in lower case. Case is ignored when files are matched."""
    columns: Columns = Columns()
    """Columns that hold a document's parts."""


class Text(Settings):
    """Plain text in UTF-8 in a file, or anywhere below a folder or URL.

    Each file is one document. Long files are split into several. By default, files ending in
    `.txt`, `.text`, `.md` and `.rst` are read, each also with `.gz`, `.zst` and `.zstd`. Hidden
    files and folders (names starting with a dot or an underscore), links to places outside of the
    folder and files with other endings are skipped and counted.
    """

    kind: Literal["text"]
    """Kind of source."""
    path: Location
    """File, folder or URL."""
    suffixes: tuple[Suffix, ...] = Field(default=(".txt", ".text", ".md", ".rst"), min_length=1)
    """Suffixes of the files to read, in lower case. Case is ignored when files are matched. Each is
    also read with `.gz`, `.zst` and `.zstd`."""
    piece_characters: int = Field(default=8_000, ge=500, le=2**24)
    """Maximum length of a document, in characters. Longer files are split between paragraphs."""


class Dataset(Settings):
    """A dataset that the `datasets` library can stream, from the Hugging Face hub or a folder."""

    kind: Literal["dataset"] = "dataset"
    """Kind of source."""
    name: FolderOrName
    """Name on the Hugging Face hub, or path of a folder."""
    subset: str | None = None
    """Configuration of the dataset. Needed if the dataset has more than one."""
    split: str = "train"
    """Split to read."""
    revision: str | None = None
    """Branch, tag or commit on the hub. If not given, the hub's default branch is used."""
    columns: Columns = Columns()
    """Columns that hold a document's parts."""


class PythonDocs(Settings):
    """Docstrings and documentation files of the installed packages and the standard library."""

    kind: Literal["python-docs"]
    """Kind of source."""
    packages: tuple[str, ...] = ()
    """Packages to read. If empty, the standard library and a fixed list of large packages are read.
    Packages of that list that are not installed are skipped."""
    max_documents: int = Field(default=24_000, ge=1)
    """Maximum number of documents."""
    min_characters: int = 300
    """Minimum length of a document, in characters. Shorter texts are skipped."""
    held_out_share: Share = 0.3
    """Share of the files of a target's modules that become the target's documents. The other files
    stay in the corpus."""


AnySource = Annotated[
    Rpv2 | Jsonl | Parquet | Text | Dataset | PythonDocs, Field(discriminator="kind")
]


class Target(Settings):
    """A specialised document set. Basis distributions are made from it.

    Its documents are never part of the corpus. Exactly one of `path`, `dataset` and `modules` must
    be given.
    """

    name: Name
    """Name of the target in the catalog, in trainings and on pages."""
    path: Location | None = None
    """File, or folder that is searched for files: JSON lines or Parquet, otherwise plain text. The
    test split is made of the JSON lines and Parquet files whose name starts with `test`, or of the
    text files and folders named `test`."""
    columns: Columns = Columns()
    """Fields of JSON lines and Parquet that hold a document's parts."""
    dataset: Dataset | None = None
    """Dataset that the `datasets` library can stream."""
    modules: tuple[str, ...] = ()
    """Prefixes of Python modules, such as `scipy.stats`. Needs a source of kind `python-docs`."""
    max_documents: int | None = Field(default=None, ge=1)
    """Maximum number of documents, taken in the order of the dataset. If not given, all are
    read. Only for targets with `dataset`."""

    @model_validator(mode="after")
    def _one_origin(self) -> "Target":
        if self.path is None and self.columns != Columns():  # a form writes every default out
            raise ValueError(
                "columns applies only to the files of path. Give the columns of a dataset as "
                "dataset.columns"
            )
        if self.dataset is None and self.max_documents is not None:
            raise ValueError(
                "max_documents applies only to dataset. All files of a path are read. Remove it"
            )
        if sum((self.path is not None, self.dataset is not None, bool(self.modules))) != 1:
            raise ValueError(
                "expected exactly one of path (JSON lines, Parquet or plain text), dataset and "
                "modules (python-docs)"
            )
        return self
