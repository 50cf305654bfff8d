"""The token store: uncompressed, memory-mapped Arrow files.

The tokens of a leaf are one extent, or several in a large catalog or after additions.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Int, Int64, Integer, UInt

from data_catalog.errors import UserError, suggestion
from data_catalog.format import tables
from data_catalog.format.damage import VERIFY_REMEDY, reading, require
from data_catalog.format.files import CatalogFiles
from data_catalog.format.offsets import read_offsets_table
from data_catalog.format.token_windows import TokenWindows

IGNORED = -100  # label of padding, which the loss ignores
# Token files of a store that are mapped at once. A process may have 65,530 maps on stock Linux.
MAXIMUM_MAPS = 4_096
# The beginning of a token file, which says where its token ids are. It has about 380 bytes.
HEAD_BYTES = 512
_MAGIC = b"ARROW1\0\0"


def write_tokens(path: Path, documents: pa.LargeListArray) -> None:
    """Write one list of token ids per document.

    The file has a single record batch, so that the values are one buffer.
    """
    with pa.OSFile(str(path), "wb") as sink:
        batch = pa.record_batch({"tokens": documents})
        with pa.ipc.new_file(sink, batch.schema) as writer:
            writer.write_batch(batch)


def map_tokens(
    path: Path,
) -> tuple[UInt[np.ndarray, " tokens"], Int64[np.ndarray, " documents_plus_one"]]:
    """Return zero-copy views of a file's token ids and of the start of each document.

    Raises:
        DamagedFileError: The file is missing or is no file of tokens.
    """
    with reading(path), pa.memory_map(str(path)) as source:
        batches = pa.ipc.open_file(source)
        if batches.num_record_batches != 1:
            raise ValueError(f"found {batches.num_record_batches} record batches, expected 1")
        column = _documents(batches.get_batch(0))
        column.validate()
        values = column.values.to_numpy(zero_copy_only=True)
        starts = column.offsets.to_numpy(zero_copy_only=True)
        if starts[0] != 0 or starts[-1] != len(values):
            raise ValueError("the documents do not cover the token ids")
    return values, starts


@dataclass(frozen=True)
class TokensPlace:
    """The place of the token ids in a token file."""

    first_byte: int
    tokens: int
    dtype: np.dtype[Any]


def locate_tokens(path: str) -> TokensPlace:
    """Return the place of the token ids in a file of which only the beginning is there.

    Args:
        path: A file of the full size, whose first `HEAD_BYTES` bytes are those of a token file.

    Raises:
        ValueError: It is no file of tokens.
    """
    with pa.memory_map(path) as source:
        content = source.read_buffer()
        # Behind eight bytes, a file is a stream. Unlike a file, a stream is read from its start.
        stream = pa.ipc.open_stream(pa.BufferReader(content.slice(len(_MAGIC))))
        values = _documents(stream.read_next_batch()).values
        first = values.buffers()[1].address - content.address
        return TokensPlace(first, len(values), values.type.to_pandas_dtype()().dtype)


def _documents(batch: pa.RecordBatch) -> pa.LargeListArray:
    """Return the column of a token file."""
    column = batch.column(0)
    if not pa.types.is_large_list(column.type) or column.null_count:
        raise ValueError(f"found a column of {column.type}, expected lists of token ids")
    if not pa.types.is_unsigned_integer(column.type.value_type):
        raise ValueError(f"found {column.type.value_type}, expected unsigned token ids")
    return column


class TokenFiles(Mapping[int, UInt[np.ndarray, " _tokens"]]):
    """Token ids of each of several files. The `MAXIMUM_MAPS` files read last stay mapped.

    Any thread may read them.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        """Prepare to map the files at `paths`, which are numbered from 0."""
        self._paths = paths
        self._map = lru_cache(MAXIMUM_MAPS)(lambda number: map_tokens(paths[number])[0])

    def __getitem__(self, number: int) -> UInt[np.ndarray, " _tokens"]:
        """Return the token ids of a file, mapping it if needed."""
        return self._map(number)

    def __iter__(self) -> Iterator[int]:
        return iter(range(len(self._paths)))

    def __len__(self) -> int:
        return len(self._paths)


@dataclass(frozen=True)
class TokenStore:
    """Sequences of fixed length cut from the leaves' token streams, for one split.

    The tokens of a leaf are in extents, each a stream of documents that end with end-of-text.
    Sequence j of an extent contains its tokens `[j * length, (j + 1) * length]`, both ends
    included: `length` inputs and their labels. Each token except the first of an extent is
    predicted exactly once per epoch. The last sequence of an extent is padded, and its padding is
    masked. Sequences of a leaf are numbered across its extents. Extents are only appended, so
    sequence j of a leaf is the same in all later versions.
    """

    files: Mapping[int, Integer[np.ndarray, "..."]]  # token ids of each file
    file: Int[np.ndarray, " extents"]  # key of `files`
    first_token: Int[np.ndarray, " extents"]
    tokens: Int[np.ndarray, " extents"]
    pad: int
    # First extent of each leaf. None if every leaf has one extent.
    extents: Int[np.ndarray, " leaves_plus_one"] | None = None
    vocabulary: int | None = None
    """Number of token ids. Each id that is read is compared with it, unless it is None."""
    remote: TokenWindows | None = None
    """Reads token files that are not on this machine. None: all of them are in `files`."""
    first_input: int | None = None
    """Token id put before each extent of two tokens or more, so that its first token is predicted
    too. None: nothing is put there."""
    _ends: dict[int, Int[np.ndarray, " extents_plus_one"]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def sequences(self, length: int) -> Int[np.ndarray, " leaves"]:
        """Return the number of sequences per leaf.

        It is the sum of `ceil(labels / length)` over the extents of the leaf.
        """
        ends = self._cumulated(length)
        return np.diff(ends if self.extents is None else ends[self.extents])

    def labels(self) -> Int[np.ndarray, " leaves"]:
        """Return the number of labels per leaf: all tokens except the first of each extent.

        With `first_input` it is all tokens of extents of two tokens or more.
        """
        ends = np.r_[0, np.cumsum(self._labels(slice(None)))]
        return np.diff(ends if self.extents is None else ends[self.extents])

    def targets(
        self, leaves: Int[np.ndarray, " n"], rows: Int[np.ndarray, " n"], length: int
    ) -> Int[np.ndarray, " n"]:
        """Return the number of unmasked labels of sequence `rows[i]` of leaf `leaves[i]`."""
        extent, row = self._locate(leaves, rows, length)
        return np.minimum(self._labels(extent) - row * length, length)

    def read(
        self, leaves: Int[np.ndarray, " n"], rows: Int[np.ndarray, " n"], length: int
    ) -> tuple[Int[np.ndarray, "n length"], Int[np.ndarray, "n length"]]:
        """Return inputs and labels of sequence `rows[i]` of leaf `leaves[i]`.

        The label of padding is -100.

        Raises:
            IndexError: A leaf has no such sequence.
            UserError: A token id is not in the vocabulary.
        """
        inputs = np.full((len(leaves), length), self.pad, np.int64)
        labels = np.full((len(leaves), length), IGNORED, np.int64)
        # `begin` is 1 where a sequence begins with `first_input`, which is not stored, and else 0.
        extent, row = self._locate(leaves, rows, length)
        begins = np.where(row == 0, self._labels(extent) - self.tokens[extent] + 1, 0)
        windows = self._read(*self._windows(extent, row, length))
        for i, (window, begin) in enumerate(zip(windows, begins.tolist(), strict=True)):
            count = len(window) - 1 + begin
            inputs[i, begin:count] = window[:-1]
            labels[i, :count] = window[1 - begin :]
        if self.first_input is not None:
            inputs[begins > 0, 0] = self.first_input
        highest = max(inputs.max(initial=0), labels.max(initial=0))
        if self.vocabulary is not None and highest >= self.vocabulary:
            raise UserError(
                f"token {highest}: not in the catalog's vocabulary of {self.vocabulary}. "
                f"{VERIFY_REMEDY}"
            )
        return inputs, labels

    def expect(
        self, leaves: Int[np.ndarray, " n"], rows: Int[np.ndarray, " n"], length: int
    ) -> None:
        """Begin to fetch sequences that will be read next, in this order, if they are remote.

        Sequences that were expected before and were not read yet are no longer expected.
        """
        if self.remote is not None:
            self.remote.expect(*self._windows(*self._locate(leaves, rows, length), length))

    def _read(
        self,
        file: Int[np.ndarray, " n"],
        first: Int[np.ndarray, " n"],
        last: Int[np.ndarray, " n"],
    ) -> Iterable[Integer[np.ndarray, " _tokens"]]:
        if self.remote is not None:
            return self.remote.read(file, first, last)
        places = zip(file.tolist(), first.tolist(), last.tolist(), strict=True)
        return (self.files[number][start:end] for number, start, end in places)

    def _windows(
        self, extent: Int[np.ndarray, " n"], row: Int[np.ndarray, " n"], length: int
    ) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " n"], Int[np.ndarray, " n"]]:
        """Return the file, the first stored token and the end of sequences of extents."""
        begin = self.first_token[extent]
        # With `first_input`, sequences begin one token earlier.
        first = begin + row * length + self.tokens[extent] - 1 - self._labels(extent)
        last = np.minimum(first + length + 1, begin + self.tokens[extent])
        return self.file[extent], np.maximum(first, begin), last

    def _labels(self, extent: slice | Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
        """Return the number of labels of each extent."""
        tokens = self.tokens[extent]
        more = (tokens > 1) & (self.first_input is not None)
        return np.maximum(tokens - 1, 0) + more

    def _cumulated(self, length: int) -> Int[np.ndarray, " extents_plus_one"]:
        """Return the number of sequences before each extent."""
        if length not in self._ends:
            counts = -(-self._labels(slice(None)) // length)
            self._ends[length] = np.r_[0, np.cumsum(counts)]
        return self._ends[length]

    def _locate(
        self, leaves: Int[np.ndarray, " n"], rows: Int[np.ndarray, " n"], length: int
    ) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " n"]]:
        """Return the extent of each sequence and its number in the extent."""
        ends = self._cumulated(length)
        begins = ends if self.extents is None else ends[self.extents]
        number = begins[leaves] + rows
        outside = (rows < 0) | (number >= begins[leaves + 1])
        if outside.any():
            leaf, row = leaves[outside][0], rows[outside][0]
            count = begins[leaf + 1] - begins[leaf]
            raise IndexError(f"leaf {leaf}: row {row} not found. It has {count} sequences.")
        extent = np.searchsorted(ends, number, side="right") - 1
        return extent, number - ends[extent]


def open_tokens(files: CatalogFiles, split: str) -> TokenStore:
    """Open the tokens of one split of the corpus, `train` or `heldout`.

    Each file is mapped once to check it. Files that are not on this machine are checked when they
    are first read.

    Raises:
        DamagedFileError: A file is missing or damaged, or the offsets do not fit the token files.
        UserError: The catalog was fetched without tokens.
    """
    if files.remote_tokens is None:
        files.require("tokens")
    layout, leaves = files.layout, files.levels.leaves
    offsets = read_offsets_table(files)
    table = offsets.filter(pc.equal(offsets["split"], split)).sort_by(tables.OFFSETS_ORDER)
    leaf, top, part, first, tokens = (
        table[name].to_numpy().astype(np.int64)
        for name in ("leaf", "top", "part", "first_token", "tokens")
    )
    places, file = np.unique(np.stack([top, part]), axis=1, return_inverse=True)
    paths = [layout.tokens(*place) for place in places.T.tolist()]
    ends = np.zeros(len(paths), np.int64)
    np.maximum.at(ends, file, first + tokens)
    mapped, remote = TokenFiles([] if files.remote_tokens else paths), None
    if files.remote_tokens and paths:
        names = [path.relative_to(layout.root).as_posix() for path in paths]
        remote = files.remote_tokens.open(split, names, ends)
    else:
        sizes = np.array([len(values) for values in mapped.values()], np.int64)
        require(
            layout.offsets,
            bool((ends <= sizes).all()),
            "an extent ends past the end of its token file",
        )
    extents = np.searchsorted(leaf, np.arange(leaves + 1))
    vocabulary = files.manifest.tokenizer.vocabulary
    return TokenStore(mapped, file, first, tokens, files.end_of_text, extents, vocabulary, remote)


def open_target(files: CatalogFiles, name: str, split: str, *, begun: bool = False) -> TokenStore:
    """Memory-map the tokens of one split of a target: `align`, `validation` or `test`.

    Each document is a leaf of its own.

    Args:
        files: the open catalog.
        name: name of the target.
        split: the split.
        begun: put an end-of-text before each document, as before those of the corpus.

    Raises:
        DamagedFileError: A file is missing or damaged, or the files do not fit each other.
        UserError: The catalog has no such target, or the split is empty.
    """
    if name not in files.manifest.targets:
        known = suggestion(name, files.manifest.targets, "Its targets")
        raise UserError(f"target {name}: not in {files.root}. {known}")
    folder = files.layout.target(name)
    documents = folder / "documents.parquet"
    splits = files.read_table(documents, tables.TARGET, ["split"])["split"]
    values, offsets = map_tokens(folder / "tokens.arrow")
    require(
        folder / "tokens.arrow",
        len(splits) == len(offsets) - 1 and bool((np.diff(offsets) >= 0).all()),
        f"its documents are not those of {documents.name}",
    )
    chosen = np.flatnonzero(splits.to_numpy(zero_copy_only=False) == split)
    if not len(chosen):
        raise UserError(f"target {name}: its {split} split is empty. Give it more documents.")
    starts, ends = offsets[chosen], offsets[chosen + 1]
    return TokenStore(
        {0: values},
        np.zeros(len(chosen), np.int64),
        starts.astype(np.int64),
        (ends - starts).astype(np.int64),
        files.end_of_text,
        vocabulary=files.manifest.tokenizer.vocabulary,
        first_input=files.end_of_text if begun else None,
    )
