"""The domain store: an external sort by leaf. Each part becomes a sorted run; each top-level domain merges its slice of all runs."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data_catalog import tables
from data_catalog.layout import Levels
from data_catalog.manifest import fingerprint
from data_catalog.records import Account, Tally
from data_catalog.tokens import write_tokens
from pipeline.config import Build
from pipeline.kept import kept_batches, read_verdicts
from pipeline.parts import Part, make_part
from pipeline.tokenize import encode

VERSION = 1
ROW_GROUP = 2_048  # fewest rows of a row group; a group holds whole leaves, so that one domain is read without its neighbours
ORDER = [("leaf", "ascending"), ("split", "descending"), ("id_int", "ascending"), ("doc_id", "ascending")]  # train before heldout


def sort_part(source: Part, verdicts: Part, assigned: Part, tokenizer: Part, folder: Path, config: Build, levels: Levels) -> Part:
    """Tokenize one part's kept documents and write them as a run sorted by leaf, one row group a top-level domain."""

    def make(out: Path) -> Account:
        rows = read_verdicts(source, verdicts)
        rows = rows.filter(pc.is_null(rows["reason"]))
        leaves = pq.read_table(assigned.folder / "leaves.parquet")
        columns = ["doc_id", "id_int", "url", "source", "language", "text", "signals"]
        batches = list(kept_batches(source, verdicts, columns))
        ids = [encode(batch["text"].to_pylist(), tokenizer) for batch in batches]
        documents = pa.concat_tables([tables.SOURCE.empty_table().select(columns), *batches])
        tokens = pa.chunked_array(ids) if ids else pa.chunked_array([encode([], tokenizer)])
        table = pa.table(
            {
                **{name: documents[name] for name in columns},
                "characters": rows["characters"],
                "tokens": pc.cast(pc.list_value_length(tokens), pa.int64()),
                "failed_rules": rows["failed_rules"],
                "leaf": leaves["leaf"],
                "distance": leaves["distance"],
                "split": split(documents["id_int"], config.held_out_share, "train", "heldout"),
                "ids": tokens,
            }
        ).sort_by(ORDER)
        _write_grouped(out / "run.parquet", table, table["leaf"].to_numpy() // levels.span(levels.granularities[0]), fewest_rows=1)
        amount = Tally(rows=table.num_rows, characters=pc.sum(table["characters"]).as_py() or 0)
        return Account(read=amount, kept=amount)

    inputs = [part.fingerprint for part in (source, verdicts, assigned, tokenizer)]
    return make_part(folder, fingerprint("sort", VERSION, inputs, config.held_out_share, levels.granularities), make)


def split(ids: pa.ChunkedArray, held_out: float, most: str, few: str) -> pa.Array:
    """`few` for a share `held_out` of the documents, by hash of the id: the same for every build."""
    mixed = ids.to_numpy() * np.uint64(0x9E3779B97F4A7C15)  # id_int orders samples elsewhere: decorrelate
    return pa.array(np.where(mixed < np.uint64(int(held_out * 2**64)), few, most).astype(object), pa.string())


def shard_part(top: int, runs: list[Part], folder: Path, levels: Levels) -> Part:
    """Merge one top-level domain's slice of every run into its documents, its tokens and their offsets."""
    span = levels.span(levels.granularities[0])

    def make(out: Path) -> Account:
        mine = [("leaf", ">=", top * span), ("leaf", "<", (top + 1) * span)]
        table = pa.concat_tables([pq.read_table(run.folder / "run.parquet", filters=mine) for run in runs]).sort_by(ORDER)
        ids = table["ids"].combine_chunks()
        documents = table.select(tables.DOCUMENTS.names).cast(tables.DOCUMENTS)
        _write_grouped(out / "documents.parquet", documents, documents["leaf"].to_numpy(), ROW_GROUP)
        write_tokens(out / "tokens.arrow", ids)
        pq.write_table(_offsets(documents, top), out / "offsets.parquet")
        amount = Tally(rows=documents.num_rows, characters=pc.sum(documents["characters"]).as_py() or 0)
        return Account(read=amount, kept=amount)

    return make_part(folder, fingerprint("shard", VERSION, top, span, [run.fingerprint for run in runs]), make)


def _write_grouped(path: Path, table: pa.Table, keys: np.ndarray, fewest_rows: int) -> None:
    """Write row groups that end where the (sorted) key changes, as soon as they hold `fewest_rows`."""
    ends = [*np.flatnonzero(np.diff(keys)) + 1, len(keys)]
    with pq.ParquetWriter(path, table.schema, compression="zstd") as writer:
        start = 0
        for end in ends:
            if end - start >= fewest_rows or end == len(keys):
                writer.write_table(table.slice(start, end - start), row_group_size=max(end - start, 1))
                start = end


def _offsets(documents: pa.Table, top: int) -> pa.Table:
    """First row and token of every (leaf, split) of one sorted file."""
    leaf, tokens = documents["leaf"].to_numpy(), documents["tokens"].to_numpy()
    train = pc.equal(documents["split"], "train").to_numpy()
    starts = (
        np.flatnonzero(np.r_[True, (np.diff(leaf) != 0) | (np.diff(train.astype(np.int8)) != 0)]) if len(leaf) else np.empty(0, np.int64)
    )
    ends = np.r_[starts[1:], len(leaf)] if len(starts) else starts
    before = np.r_[0, np.cumsum(tokens)]
    return pa.table(
        {
            "leaf": leaf[starts],
            "split": np.where(train[starts], "train", "heldout").astype(object),
            "top": np.full(len(starts), top),
            "first_row": starts,
            "rows": ends - starts,
            "first_token": before[starts],
            "tokens": before[ends] - before[starts],
        }
    ).cast(tables.OFFSETS)
