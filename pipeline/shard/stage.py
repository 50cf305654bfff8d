"""The domain store, an external sort by leaf.

Each part becomes sorted runs, one file per range of leaves. Each range is merged on its own.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data_catalog.format import tables
from data_catalog.format.accounts import Account
from data_catalog.format.manifest import fingerprint
from data_catalog.place import Folder
from pipeline.config import Store
from pipeline.part_list import listed_parts
from pipeline.parts import Part, make_part
from pipeline.shard.merge import merge_runs
from pipeline.shard.ranges import TopRange, read_ranges
from pipeline.shard.sorted_runs import SortedRuns, range_name, run_columns, write_runs
from pipeline.shard.tokenize import NO_TOKENS, NO_TOKENS_DETAIL, check_encoded, encode_texts
from pipeline.source.stage import DOCUMENTS_FILE, source_file
from pipeline.verdicts import kept_key, quarantine, read_verdicts

# Versions of the output:
# 1: one run per part, one file per top-level domain.
# 2: several runs per part, several files per top-level domain.
# 3: documents that the tokenizer gives no tokens for are quarantined.
# 4: runs have a file per range of leaves. Files of a domain with several ranges end with a range.
VERSION = 4
DOCUMENT_FILES, TOKEN_FILES = "documents-*.parquet", "tokens-*.arrow"
OFFSETS_FILE = "offsets.parquet"
_SIGNALS = "signals.parquet"  # of a quality part: shipped and computed ones
_READ_ROWS = 1_024  # rows tokenized at once, at about 100 bytes per token
# Parts that a merge maps only once. A process may have 65,530 maps on stock Linux.
_MAPPED_PARTS = 1_024
_MEGABYTE = 2**20


def sort_part(
    source: Part,
    judged: Part,
    embedded: Part,
    final: Part,
    assigned: Part,
    tokenizer: Part,
    ranges: Part,
    folder: Folder,
    config: Store,
    held_out_share: float,
) -> Part:
    """Tokenize the documents of one part that `final` keeps, and write them as sorted runs.

    A range has one file, see `pipeline.shard.sorted_runs.range_path`.

    Memory: twice `store.file_megabytes` (about four times with the allocator's overhead, as
    measured), and about 100 bytes per document for verdicts and leaves. Documents that the
    tokenizer refuses or gives no tokens for are quarantined, see `pipeline.verdicts.quarantine`.

    Args:
        source: The source part.
        judged: Its quality part.
        embedded: The verdicts that keep the documents with an embedding.
        final: The verdicts before this stage.
        assigned: One leaf per document that `embedded` keeps.
        tokenizer: The tokenizer.
        ranges: The ranges of leaves, see `pipeline.shard.ranges.plan_ranges`.
        folder: The part's folder.
        config: The size of a run.
        held_out_share: Share of the documents for the split `heldout`.

    Raises:
        UserError: Most documents have no tokens.
    """

    bounds = read_ranges(ranges).bounds

    def make(out: Path) -> Account:
        refused: list[int] = []
        documents = _documents(
            source, judged, embedded, final, assigned, tokenizer, held_out_share, refused
        )
        written = write_runs(documents, out, config.file_megabytes * _MEGABYTE, bounds)
        check_encoded(len(refused), written.rows + len(refused), source_file(source))
        faults = dict.fromkeys(refused, NO_TOKENS_DETAIL)
        failed = quarantine(source, final, faults, NO_TOKENS, "sort", out)
        return Account(
            read=written + failed, kept=written, failed={NO_TOKENS: failed} if refused else {}
        )

    kept = [kept_key(source, embedded), kept_key(source, final)]
    inputs = [
        source.fingerprint,
        judged.fingerprint,
        *kept,
        assigned.fingerprint,
        tokenizer.fingerprint,
    ]
    key = fingerprint("sort", VERSION, inputs, held_out_share, config, bounds)
    return make_part(folder, key, make)


def shard_part(wanted: TopRange, runs: Part, folder: Folder, config: Store) -> Part:
    """Merge the leaves of one top-level domain in one range.

    Writes `documents-PPPP.parquet`, `tokens-PPPP.arrow` and `offsets.parquet`, numbered from 0. A
    range without documents has no files. See `pipeline.shard.merge.merge_runs` for the memory.

    Args:
        wanted: The leaves.
        runs: The list of the parts of `sort_part`, see `pipeline.part_list`.
        folder: The part's folder.
        config: The size of a file.
    """

    def make(out: Path) -> Account:
        offsets, written = merge_runs(
            [
                SortedRuns(
                    part.folder_with(range_name(wanted.number)),
                    wanted.number,
                    stay_mapped=position < _MAPPED_PARTS,
                )
                for position, part in enumerate(listed_parts(runs))
            ],
            wanted.first,
            wanted.last,
            out,
            config.file_megabytes * _MEGABYTE,
            wanted.top,
        )
        pq.write_table(
            offsets.sort_by(tables.OFFSETS_ORDER), out / OFFSETS_FILE, compression="zstd"
        )
        return Account(read=written, kept=written)

    leaves = (wanted.top, wanted.number, wanted.first, wanted.last)
    return make_part(folder, fingerprint("shard", VERSION, leaves, config, runs.fingerprint), make)


def document_files(stored: Part) -> list[Path]:
    """Return the document files of one `shard_part`, in the order of their leaves."""
    return stored.matching(DOCUMENT_FILES)


def token_files(stored: Part) -> list[Path]:
    """Return the token files of one `shard_part`, in the order of `document_files`."""
    return stored.matching(TOKEN_FILES)


def assign_splits(ids: pa.ChunkedArray, held_out: float, most: str, few: str) -> pa.Array:
    """Return `few` for a share `held_out` of the documents, else `most`.

    The hash of the id decides, so the split is the same in every build.
    """
    # Other samples are ordered by id_int. The product makes the split independent of them.
    mixed = ids.to_numpy() * np.uint64(0x9E3779B97F4A7C15)
    return pa.array(
        np.where(mixed < np.uint64(int(held_out * 2**64)), few, most).astype(object), pa.string()
    )


def _documents(
    source: Part,
    judged: Part,
    embedded: Part,
    final: Part,
    assigned: Part,
    tokenizer: Part,
    held_out_share: float,
    refused: list[int],
) -> Iterator[pa.Table]:
    """Yield the documents that `final` keeps, with their tokens, `_READ_ROWS` at a time.

    Rows of documents that `encode_texts` gives no ids for are appended to `refused`.
    """
    verdicts = read_verdicts(source, embedded)
    placed = pc.is_null(verdicts["reason"]).to_numpy()
    stored = placed & pc.is_null(read_verdicts(source, final)["reason"]).to_numpy()
    leaves = pq.read_table(assigned.file("leaves.parquet"), columns=["leaf", "distance"])
    if leaves.num_rows != placed.sum():
        raise ValueError(
            f"{assigned.place}: {leaves.num_rows} leaves. Expected {placed.sum()}, the documents "
            f"that {embedded.place} keeps."
        )
    leaf_row = np.cumsum(placed) - 1  # row in `leaves` of each placed document
    for start, batch in _source_batches(source, judged):
        rows = start + np.flatnonzero(stored[start : start + batch.num_rows])
        if not len(rows):
            continue
        ids = encode_texts(batch["text"].take(pa.array(rows - start)).to_pylist(), tokenizer)
        encoded = ids.is_valid().to_numpy(zero_copy_only=False)
        refused += rows[~encoded].tolist()
        rows, ids = rows[encoded], ids.drop_null()
        kept = batch.take(pa.array(rows - start))
        made = {
            **{name: kept[name] for name in kept.column_names},
            **{
                name: verdicts[name].take(pa.array(rows)) for name in ("characters", "failed_rules")
            },
            **{name: leaves[name].take(pa.array(leaf_row[rows])) for name in ("leaf", "distance")},
            "tokens": pc.cast(pc.list_value_length(ids), pa.int64()),
            "split": assign_splits(kept["id_int"], held_out_share, "train", "heldout"),
            "ids": ids,
        }
        yield pa.table([made[name] for name in run_columns()], names=run_columns())


def _source_batches(source: Part, judged: Part) -> Iterator[tuple[int, pa.Table]]:
    """Yield documents of the source with their signals, and the row of the first document."""
    names = ["doc_id", "id_int", "url", "source", "language", "digest", "text"]
    measured = judged.file(_SIGNALS) if judged.has(_SIGNALS) else source.file(DOCUMENTS_FILE)
    start = 0
    with (
        # Buffering would keep the whole file in memory.
        pq.ParquetFile(source.file(DOCUMENTS_FILE), pre_buffer=False) as file,
        pq.ParquetFile(measured, pre_buffer=False) as signals,
    ):
        for documents, table in zip(
            _evenly(file, names), _evenly(signals, ["signals"]), strict=True
        ):
            yield start, documents.append_column("signals", table["signals"])
            start += documents.num_rows


def _evenly(file: pq.ParquetFile, names: list[str]) -> Iterator[pa.Table]:
    """Yield tables of exactly `_READ_ROWS`, except the last.

    So two files of the same rows can be read side by side.
    """
    waiting: list[pa.Table] = []
    count = 0
    for batch in file.iter_batches(_READ_ROWS, columns=names):
        waiting.append(pa.Table.from_batches([batch]))
        count += len(batch)
        while count >= _READ_ROWS:
            table = pa.concat_tables(waiting)
            yield table.slice(0, _READ_ROWS)
            waiting, count = [table.slice(_READ_ROWS)], count - _READ_ROWS
    if count:
        yield pa.concat_tables(waiting)
