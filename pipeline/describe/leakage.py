"""Leakage: how much of each document of a target one document of the corpus has too.

The measure is the largest share of its distinct 13-grams in a single other document. Common
phrases in several documents do not add up.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from threading import Lock

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from jaxtyping import Float64

from data_catalog.format import tables
from data_catalog.format.accounts import Account
from data_catalog.format.manifest import fingerprint
from data_catalog.place import Folder
from pipeline.grams import GramIndex, index_grams
from pipeline.parts import Part, make_part
from pipeline.shard.stage import document_files
from pipeline.source.stage import DOCUMENTS_FILE

# Versions of the output:
# 1: the largest share in one train document.
VERSION = 1
SHARED_FILE = "shared.parquet"
# One row per document of a target that shares 13-grams with the corpus.
SHARED = pa.schema([tables.LEAKAGE.field(name) for name in ("name", "doc_id", "in_corpus")])
_READ_ROWS = 1_024
_ONE_INDEX = Lock()  # the first thread makes the index, and the others wait for it


def leakage_part(stored: Part, targets: Sequence[Part], folder: Folder) -> Part:
    """Compare the documents of targets with the train documents of a part of `shard_part`.

    Writes `shared.parquet` (SHARED). Memory: the texts of `_READ_ROWS` documents, and the 13-grams
    of all targets, once per process (see GramIndex).
    """

    def make(out: Path) -> Account:
        with _ONE_INDEX:
            documents, index = _index_targets(
                tuple(part.folder for part in targets), targets_fingerprint
            )
        texts = (texts for file in document_files(stored) for texts in _train_texts(file))
        shares = _largest_shares(index, texts)
        table = documents.append_column("in_corpus", pa.array(shares))
        found = table.filter(pc.greater(table["in_corpus"], 0))
        pq.write_table(found.cast(SHARED), out / SHARED_FILE, compression="zstd")
        return Account(read=stored.account.kept, kept=stored.account.kept)

    targets_fingerprint = fingerprint([[part.name, part.fingerprint] for part in targets])
    return make_part(
        folder, fingerprint("leakage", VERSION, stored.fingerprint, targets_fingerprint), make
    )


def leakage_table(targets: Mapping[str, pa.Table], shared: pa.Table) -> pa.Table:
    """Return tables.LEAKAGE: one row per document of a target.

    Args:
        targets: Documents (tables.TARGET) by name.
        shared: Rows of SHARED. The largest of several for one document counts.
    """
    largest = shared.group_by(["name", "doc_id"]).aggregate([("in_corpus", "max")])
    in_corpus = dict(
        zip(
            zip(largest["name"].to_pylist(), largest["doc_id"].to_pylist(), strict=True),
            largest["in_corpus_max"].to_pylist(),
            strict=True,
        )
    )
    rows = [tables.LEAKAGE.empty_table()]
    for name, documents in targets.items():
        texts, ids = documents["text"].to_pylist(), documents["doc_id"].to_pylist()
        is_align = pc.equal(documents["split"], "align").to_numpy()
        index = index_grams(texts)
        in_align = _largest_shares(index, [[texts[i] for i in np.flatnonzero(is_align).tolist()]])
        columns = {
            "name": [name] * len(ids),
            "doc_id": ids,
            "split": documents["split"],
            "grams": index.sizes,
            "in_corpus": [in_corpus.get((name, doc_id), 0.0) for doc_id in ids],
            "in_align": pa.array(in_align, mask=is_align),
        }
        rows.append(pa.table(columns).cast(tables.LEAKAGE))
    return pa.concat_tables(rows)


def _largest_shares(
    index: GramIndex, batches: Iterable[Sequence[str]]
) -> Float64[np.ndarray, " documents"]:
    """Return the largest share of each indexed document's 13-grams in one of the texts."""
    most = np.zeros(len(index.sizes), np.int64)
    for texts in batches if len(index.grams) else ():  # without targets, nothing is read
        for _, documents, counts in index.shared(texts):
            most[documents] = np.maximum(most[documents], counts)
    return most / np.maximum(index.sizes, 1)


@lru_cache(maxsize=1)
def _index_targets(folders: tuple[Path, ...], _: str) -> tuple[pa.Table, GramIndex]:
    """Return the name of the target and the id of each document, and the index of all.

    The second argument is the fingerprint of their contents.
    """
    names: list[str] = []
    ids: list[str] = []
    texts: list[str] = []
    for folder in folders:
        table = pq.read_table(folder / DOCUMENTS_FILE, columns=["doc_id", "text"])
        names += [folder.name] * len(table)
        ids += table["doc_id"].to_pylist()
        texts += table["text"].to_pylist()
    documents = pa.table(
        {"name": pa.array(names, pa.string()), "doc_id": pa.array(ids, pa.string())}
    )
    return documents, index_grams(texts)


def _train_texts(file: Path) -> Iterable[list[str]]:
    """Yield the texts of the train documents of a stored file, in batches."""
    with pq.ParquetFile(file, pre_buffer=False) as stored:
        for batch in stored.iter_batches(_READ_ROWS, columns=["text", "split"]):
            yield batch.filter(pc.equal(batch["split"], "train"))["text"].to_pylist()
