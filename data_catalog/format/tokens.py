"""The token store: uncompressed, memory-mapped Arrow files.

The tokens of a leaf are one extent, or several in a large catalog or after additions.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Int, Int64, Integer, UInt

from data_catalog.errors import UserError, suggestion
from data_catalog.format import tables
from data_catalog.format.files import CatalogFiles

IGNORED = -100  # label of padding, which the loss ignores


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
    """Return zero-copy views of a file's token ids and of the start of each document."""
    with pa.memory_map(str(path)) as source:
        column = pa.ipc.open_file(source).get_batch(0).column(0)
    return column.values.to_numpy(zero_copy_only=True), column.offsets.to_numpy(zero_copy_only=True)


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
    _ends: dict[int, Int[np.ndarray, " extents_plus_one"]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def sequences(self, length: int) -> Int[np.ndarray, " leaves"]:
        """Return the number of sequences per leaf.

        It is the sum of `ceil((tokens - 1) / length)` over the extents of the leaf.
        """
        ends = self._cumulated(length)
        return np.diff(ends if self.extents is None else ends[self.extents])

    def labels(self) -> Int[np.ndarray, " leaves"]:
        """Return the number of labels per leaf: all tokens except the first of each extent."""
        ends = np.r_[0, np.cumsum(np.maximum(self.tokens - 1, 0))]
        return np.diff(ends if self.extents is None else ends[self.extents])

    def targets(
        self, leaves: Int[np.ndarray, " n"], rows: Int[np.ndarray, " n"], length: int
    ) -> Int[np.ndarray, " n"]:
        """Return the number of unmasked labels of sequence `rows[i]` of leaf `leaves[i]`."""
        extent, row = self._locate(leaves, rows, length)
        return np.minimum(self.tokens[extent] - 1 - row * length, length)

    def read(
        self, leaves: Int[np.ndarray, " n"], rows: Int[np.ndarray, " n"], length: int
    ) -> tuple[Int[np.ndarray, "n length"], Int[np.ndarray, "n length"]]:
        """Return inputs and labels of sequence `rows[i]` of leaf `leaves[i]`.

        The label of padding is -100.

        Raises:
            IndexError: A leaf has no such sequence.
        """
        inputs = np.full((len(leaves), length), self.pad, np.int64)
        labels = np.full((len(leaves), length), IGNORED, np.int64)
        extent, row = self._locate(leaves, rows, length)
        first = self.first_token[extent] + row * length
        last = np.minimum(first + length + 1, self.first_token[extent] + self.tokens[extent])
        for i, (file, start, end) in enumerate(
            zip(self.file[extent].tolist(), first.tolist(), last.tolist(), strict=True)
        ):
            window = self.files[file][start:end]
            inputs[i, : len(window) - 1] = window[:-1]
            labels[i, : len(window) - 1] = window[1:]
        return inputs, labels

    def _cumulated(self, length: int) -> Int[np.ndarray, " extents_plus_one"]:
        """Return the number of sequences before each extent."""
        if length not in self._ends:
            counts = np.maximum(-(-(self.tokens - 1) // length), 0)
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
    """Memory-map the tokens of one split of the corpus, `train` or `heldout`.

    Raises:
        UserError: A token file is missing, or the offsets do not fit the files.
    """
    files.require("tokens")
    layout, leaves = files.layout, files.levels.leaves
    table = pq.read_table(layout.offsets, filters=[("split", "=", split)]).sort_by(
        tables.OFFSETS_ORDER
    )
    leaf, top, part, first, tokens = (
        table[name].to_numpy().astype(np.int64)
        for name in ("leaf", "top", "part", "first_token", "tokens")
    )
    places, file = np.unique(np.stack([top, part]), axis=1, return_inverse=True)
    paths = [layout.tokens(*place) for place in places.T.tolist()]
    if missing := [path for path in paths if not path.is_file()]:
        raise UserError(
            f"{missing[0]}: missing. A catalog without its tokens cannot be trained on. "
            "Run `clustermix verify` to see which files are damaged."
        )
    mapped = {number: map_tokens(path)[0] for number, path in enumerate(paths)}
    sizes = np.array([len(values) for values in mapped.values()], np.int64)
    if len(leaf) and (leaf.max() >= leaves or (first + tokens > sizes[file]).any()):
        raise UserError(
            f"{layout.offsets}: an extent ends past the end of its token file. "
            "Build the catalog again."
        )
    extents = np.searchsorted(leaf, np.arange(leaves + 1))
    return TokenStore(mapped, file, first, tokens, files.end_of_text, extents)


def open_target(files: CatalogFiles, name: str, split: str) -> TokenStore:
    """Memory-map the tokens of one split of a target: `align`, `validation` or `test`.

    Each document is a leaf of its own.

    Raises:
        UserError: The catalog has no such target, or the split is empty.
    """
    if name not in files.manifest.targets:
        known = suggestion(name, files.manifest.targets, "Its targets")
        raise UserError(f"target {name}: not in {files.root}. {known}")
    folder = files.layout.target(name)
    for path in (folder / "tokens.arrow", folder / "documents.parquet"):
        if not path.is_file():
            raise UserError(
                f"{path}: missing. Run `clustermix verify` to see which files are damaged."
            )
    values, offsets = map_tokens(folder / "tokens.arrow")
    splits = pq.read_table(folder / "documents.parquet", columns=["split"])["split"]
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
    )
