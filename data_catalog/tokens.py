"""The token store: one uncompressed Arrow file a top-level domain, memory-mapped; a leaf's tokens are one contiguous run."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Int

from data_catalog.errors import UserError
from data_catalog.layout import Layout, Levels

IGNORED = -100  # label of a padded position: takes no part in the loss


def write_tokens(path: Path, documents: pa.LargeListArray) -> None:
    """Write one list of token ids a document, as a single record batch so that the values are one buffer."""
    with pa.OSFile(str(path), "wb") as sink:
        batch = pa.record_batch({"tokens": documents})
        with pa.ipc.new_file(sink, batch.schema) as writer:
            writer.write_batch(batch)


def map_tokens(path: Path) -> tuple[Int[np.ndarray, " tokens"], Int[np.ndarray, " documents_plus_one"]]:
    """Zero-copy view of a file's token ids, and where each document starts in it."""
    with pa.memory_map(str(path)) as source:
        column = pa.ipc.open_file(source).get_batch(0).column(0)
    return column.values.to_numpy(zero_copy_only=True), column.offsets.to_numpy(zero_copy_only=True)


@dataclass(frozen=True)
class TokenStore:
    """Sequences of fixed length cut from the leaves' token streams, for one split.

    Sequence j of a leaf holds tokens `[j * length, (j + 1) * length]`, both ends included: `length` inputs and the
    label of each, so that every token but the stream's first is predicted exactly once an epoch. The last sequence
    is padded, and its padding masked. A stream is the leaf's documents, each closed by an end-of-text token.
    """

    files: dict[int, Int[np.ndarray, " tokens"]]  # by top-level domain
    top: Int[np.ndarray, " leaves"]
    first_token: Int[np.ndarray, " leaves"]
    tokens: Int[np.ndarray, " leaves"]
    pad: int

    def sequences(self, length: int) -> Int[np.ndarray, " leaves"]:
        """How many sequences each leaf holds: `ceil((tokens - 1) / length)`."""
        return np.maximum(-(-(self.tokens - 1) // length), 0)

    def read(
        self, leaves: Int[np.ndarray, " n"], rows: Int[np.ndarray, " n"], length: int
    ) -> tuple[Int[np.ndarray, "n length"], Int[np.ndarray, "n length"]]:
        """Inputs and labels of sequence `rows[i]` of leaf `leaves[i]`; the label of padding is -100."""
        inputs = np.full((len(leaves), length), self.pad, np.int64)
        labels = np.full((len(leaves), length), IGNORED, np.int64)
        for i, (leaf, row) in enumerate(zip(leaves.tolist(), rows.tolist(), strict=True)):
            first = self.first_token[leaf] + row * length
            last = min(first + length + 1, self.first_token[leaf] + self.tokens[leaf])
            window = self.files[int(self.top[leaf])][first:last]
            inputs[i, : len(window) - 1] = window[:-1]
            labels[i, : len(window) - 1] = window[1:]
        return inputs, labels


def open_tokens(root: Path, levels: Levels, split: str, pad: int) -> TokenStore:
    """Memory-map the corpus's tokens of one split, `train` or `heldout`."""
    table = pq.read_table(Layout(root).offsets, filters=[("split", "=", split)])
    leaves = table["leaf"].to_numpy()
    top, first, tokens = (np.zeros(levels.leaves, np.int64) for _ in range(3))
    top[leaves], first[leaves], tokens[leaves] = (table[name].to_numpy() for name in ("top", "first_token", "tokens"))
    files = {int(t): map_tokens(Layout(root).tokens(int(t)))[0] for t in np.unique(top[leaves])}
    if len(leaves) and (leaves.max() >= levels.leaves or any((first + tokens)[top == t].max() > len(v) for t, v in files.items())):
        raise UserError(f"{root}: offsets.parquet points past the end of the token files; build the catalog again")
    return TokenStore(files, top, first, tokens, pad)


def open_target(root: Path, name: str, split: str, pad: int) -> TokenStore:
    """A target set's tokens of one split, `align`, `validation` or `test`, each document a leaf of its own.

    Raises:
        UserError: the catalog has no such target, or the split is empty.
    """
    folder = Layout(root).target(name)
    if not (folder / "documents.parquet").is_file() or folder.parent != root / "targets":
        known = sorted(path.name for path in (root / "targets").glob("*"))
        raise UserError(f"target {name}: not in {root}; targets there: {', '.join(known) or 'none'}")
    values, offsets = map_tokens(folder / "tokens.arrow")
    chosen = np.flatnonzero(pq.read_table(folder / "documents.parquet", columns=["split"])["split"].to_numpy(zero_copy_only=False) == split)
    if not len(chosen):
        raise UserError(f"target {name}: its {split} split is empty; give it more documents")
    starts, ends = offsets[chosen], offsets[chosen + 1]
    return TokenStore({0: values}, np.zeros(len(chosen), np.int64), starts.astype(np.int64), (ends - starts).astype(np.int64), pad)
