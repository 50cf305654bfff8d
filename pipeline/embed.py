"""Embed the kept documents of a part: one float16 vector each, in a memory-mapped array."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
from jaxtyping import Float16

from data_catalog.errors import UserError
from data_catalog.manifest import fingerprint, write_json
from data_catalog.records import Account, Tally
from pipeline.config import Build
from pipeline.encoder import Identity, identify, load
from pipeline.kept import kept_batches, read_verdicts
from pipeline.parts import Part, make_part

VERSION = 1
EMBEDDINGS = "embeddings.npy"
IDENTITY = "encoder.json"
CHUNK_DOCUMENTS = 8_192  # texts held at once; batches are sorted by length inside a chunk


def embed_part(source: Part, verdicts: Part, folder: Path, config: Build) -> Part:
    """Write `embeddings.npy`, float16 [kept documents, dim] of unit length: the documents of `source` that `verdicts` keep, in order.

    Raises:
        UserError: see `pipeline.encoder.load`; or the verdicts are not about this source.
    """
    key = fingerprint("embed", VERSION, identify(config.embed).comparable, source.fingerprint, verdicts.fingerprint)
    return make_part(folder, key, lambda out: _embed(source, verdicts, out, config))


def read_embeddings(parts: Sequence[Part]) -> list[Float16[np.ndarray, "documents dim"]]:
    """Memory maps of the parts' embeddings.

    Raises:
        UserError: the parts come from encoders whose vectors cannot be compared.
    """
    made_by = {json.dumps(read_identity(part).comparable, sort_keys=True): part for part in parts}
    if len(made_by) > 1:
        (first, a), (second, b), *_ = made_by.items()
        raise UserError(
            f"{a.folder} was embedded by {first}, {b.folder} by {second}: vectors of two encoders cannot be compared; embed again"
        )
    return [np.load(part.folder / EMBEDDINGS, mmap_mode="r", allow_pickle=False) for part in parts]


def read_identity(part: Part) -> Identity:
    """The encoder that made a part's embeddings."""
    return Identity.model_validate_json((part.folder / IDENTITY).read_text(encoding="utf-8"))


def _embed(source: Part, verdicts: Part, out: Path, config: Build) -> Account:
    table = read_verdicts(source, verdicts)
    documents = pq.read_metadata(source.folder / "documents.parquet").num_rows
    if table.num_rows != documents:
        raise UserError(
            f"{verdicts.folder / source.name}.parquet has {table.num_rows} verdicts for the {documents} documents of {source.folder}; "
            "delete both folders and build again"
        )
    kept = table.filter(pc.is_null(table["reason"]))
    read = Tally(rows=kept.num_rows, characters=pc.sum(kept["characters"]).as_py() or 0)
    write_json(out / IDENTITY, identify(config.embed))
    shape = (kept.num_rows, identify(config.embed).dimension)
    if not kept.num_rows:  # no model is needed
        np.save(out / EMBEDDINGS, np.zeros(shape, np.float16), allow_pickle=False)
        return Account(read=read, kept=read)
    encoder = load(config.embed)
    embeddings = np.lib.format.open_memmap(out / EMBEDDINGS, mode="w+", dtype=np.float16, shape=shape)
    rows = characters = 0
    for texts in _chunks(source, verdicts):
        embeddings[rows : rows + len(texts)] = encoder.encode(texts)
        rows += len(texts)
        characters += sum(map(len, texts))
    embeddings.flush()
    return Account(read=read, kept=Tally(rows=rows, characters=characters))


def _chunks(source: Part, verdicts: Part) -> Iterator[list[str]]:
    """The kept texts, in order, `CHUNK_DOCUMENTS` at a time."""
    texts: list[str] = []
    for table in kept_batches(source, verdicts, ["text"]):
        texts += table["text"].to_pylist()
        while len(texts) >= CHUNK_DOCUMENTS:
            yield texts[:CHUNK_DOCUMENTS]
            texts = texts[CHUNK_DOCUMENTS:]
    if texts:
        yield texts
