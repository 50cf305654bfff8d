"""Embed the kept documents of a part: one float16 vector each, in an array file."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
from jaxtyping import Float16, Float32

from data_catalog.errors import UserError
from data_catalog.format.accounts import Account, Tally
from data_catalog.format.encoder_identity import Identity
from data_catalog.format.manifest import fingerprint, write_json
from data_catalog.place import Folder
from data_catalog.settings import Settings
from pipeline.arrays import ArrayFile, begin_array
from pipeline.config import Embed
from pipeline.embed.encoder import load_encoder
from pipeline.embed.identity import identify
from pipeline.parts import Part, make_part
from pipeline.source.stage import source_file
from pipeline.verdicts import check_share, kept_batches, kept_key, quarantine, read_verdicts

# Versions of the output:
# 1: float16 vectors.
# 2: `storage.json` holds the error of float16; the key names precision and backend.
VERSION = 2
EMBEDDINGS_FILE = "embeddings.npy"
IDENTITY_FILE = "encoder.json"
STORAGE_FILE = "storage.json"
# Number of texts in memory per copy of the model. They are sorted by length to form batches.
CHUNK_DOCUMENTS = 8_192
# Maximum of both errors of a stored vector. The rounding of float16 is far smaller.
_MAXIMUM_STORAGE_ERROR = 1e-3
NO_EMBEDDING = "no_embedding"  # reason of a verdict
NO_EMBEDDING_DETAIL = (
    "the encoder's tokenizer refuses the text, or its vector is zero or not finite"
)


class Storage(Settings):
    """Error of storing a part's vectors as float16, measured on all of them."""

    documents: int = 0
    """Number of vectors."""
    fp16_error: float = 0
    """Maximum of 1 - cosine between a stored and a computed vector."""
    norm_error: float = 0
    """Maximum distance of a stored vector's norm from 1."""


def embed_part(source: Part, verdicts: Part, folder: Folder, config: Embed) -> Part:
    """Embed the documents of `source` that `verdicts` keep, in order.

    Writes `embeddings.npy`: `(kept documents, dim)` float16, unit norm. Beside it, `encoder.json`
    is the `Identity` of the encoder and `storage.json` the `Storage` error. With `embed.precision =
    "auto"`, a part stays done on a machine of another precision, because their vectors can be
    compared. Documents without an embedding are quarantined, see `pipeline.verdicts.quarantine`,
    and have no row.

    Raises:
        UserError: `pipeline.embed.encoder.load_encoder` fails, most documents have no embedding,
            or the verdicts do not fit this source.
    """
    chosen = (identify(config).comparable, config.precision, config.backend)
    key = fingerprint("embed", VERSION, *chosen, kept_key(source, verdicts))
    return make_part(folder, key, lambda out: _embed(source, verdicts, out, config))


def read_embeddings(parts: Sequence[Part]) -> list[ArrayFile]:
    """Return the array files of the parts' embeddings. None of them stays open.

    Raises:
        UserError: The parts come from encoders whose vectors cannot be compared.
    """
    made_by = {json.dumps(read_identity(part).comparable, sort_keys=True): part for part in parts}
    if len(made_by) > 1:
        (first, a), (second, b), *_ = made_by.items()
        raise UserError(
            f"{a.place} was embedded by {first}, {b.place} by {second}. "
            "Vectors of two encoders cannot be compared. Embed both again."
        )
    return [ArrayFile.find(part.file(EMBEDDINGS_FILE)) for part in parts]


def read_identity(part: Part) -> Identity:
    """Return the identity of the encoder that made a part's embeddings."""
    return Identity.model_validate_json(part.file(IDENTITY_FILE).read_text(encoding="utf-8"))


def read_storage(part: Part) -> Storage:
    """Return the error of storing a part's vectors as float16."""
    return Storage.model_validate_json(part.file(STORAGE_FILE).read_text(encoding="utf-8"))


def _embed(source: Part, verdicts: Part, out: Path, config: Embed) -> Account:
    table = read_verdicts(source, verdicts)
    documents = pq.read_metadata(source.file("documents.parquet")).num_rows
    if table.num_rows != documents:
        raise UserError(
            f"{verdicts.place / source.name}.parquet: {table.num_rows} verdicts for the "
            f"{documents} documents of {source.place}. Delete both folders and build again."
        )
    kept = np.flatnonzero(pc.is_null(table["reason"]).to_numpy())
    lengths = table["characters"].to_numpy()[kept]
    read = Tally(rows=len(kept), characters=int(lengths.sum()))
    identity = identify(config)
    write_json(out / IDENTITY_FILE, identity)
    shape = (len(kept), identity.dimension)
    if not len(kept):  # no model is needed
        np.save(out / EMBEDDINGS_FILE, np.zeros(shape, np.float16), allow_pickle=False)
        write_json(out / STORAGE_FILE, Storage())
        return Account(read=read, kept=read)
    seen, without = 0, []
    storage = Storage()
    with (out / EMBEDDINGS_FILE).open("wb") as file:
        begin_array(file, shape)
        for x in load_encoder(config).encode_chunks(_chunks(source, verdicts)):
            usable = np.isfinite(x).all(axis=1)
            without.append(kept[seen : seen + len(x)][~usable])
            seen += len(x)
            stored = x[usable].astype(np.float16)
            file.write(stored.tobytes())
            storage = _worst(storage, _compare(x[usable], stored))
        lost = np.concatenate(without)
        file.seek(0)
        begin_array(file, (seen - len(lost), identity.dimension))
    if storage.fp16_error > _MAXIMUM_STORAGE_ERROR or storage.norm_error > _MAXIMUM_STORAGE_ERROR:
        raise RuntimeError(
            f"{out.name}: stored embeddings differ from the computed ones: {storage}"
        )
    write_json(out / STORAGE_FILE, storage)
    if seen != len(kept):
        raise ValueError(f"{source.place}: {seen} embeddings of {len(kept)} documents.")
    check_embedded(identity, len(lost), seen, source_file(source))
    faults = dict.fromkeys(lost.tolist(), NO_EMBEDDING_DETAIL)
    failed = quarantine(source, verdicts, faults, NO_EMBEDDING, "embed", out)
    stays = Tally(rows=read.rows - failed.rows, characters=read.characters - failed.characters)
    return Account(read=read, kept=stays, failed={NO_EMBEDDING: failed} if failed.rows else {})


def check_embedded(identity: Identity, lost: int, documents: int, place: str) -> None:
    """Check that the encoder works: it fails for single documents, not for most of them.

    Args:
        identity: The encoder.
        lost: Number of documents without an embedding.
        documents: Number of documents.
        place: Name of the file or target, for messages.

    Raises:
        UserError: See `check_share`.
    """
    check_share(
        lost,
        documents,
        place,
        "embedding",
        f"embed.model {identity.model}: it gives no embedding for {lost} of the {documents} "
        f"documents in {place}. Its vectors are zero or not finite, or its tokenizer refuses "
        "the texts. Choose another model.",
    )


def _compare(x: Float32[np.ndarray, "n dim"], stored: Float16[np.ndarray, "n dim"]) -> Storage:
    """Return the error of storing `x`, whose rows have unit norm."""
    if not len(x):
        return Storage()
    back = stored.astype(np.float64)
    norms = np.linalg.norm(back, axis=1)
    with np.errstate(invalid="ignore"):  # infinite values are the next line's
        cosines = np.einsum("nd,nd->n", x.astype(np.float64), back) / (
            norms * np.linalg.norm(x.astype(np.float64), axis=1)
        )
    if not np.isfinite(cosines).all():
        raise RuntimeError(f"{(~np.isfinite(cosines)).sum()} embeddings are not finite in float16")
    return Storage(
        documents=len(x),
        fp16_error=max(float(1 - cosines.min()), 0.0),
        norm_error=float(np.abs(norms - 1).max()),
    )


def _worst(a: Storage, b: Storage) -> Storage:
    return Storage(
        documents=a.documents + b.documents,
        fp16_error=max(a.fp16_error, b.fp16_error),
        norm_error=max(a.norm_error, b.norm_error),
    )


def _chunks(source: Part, verdicts: Part) -> Iterator[list[str]]:
    """Yield the kept texts, in order, `CHUNK_DOCUMENTS` at a time."""
    texts: list[str] = []
    for table in kept_batches(source, verdicts, ["text"]):
        texts += table["text"].to_pylist()
        while len(texts) >= CHUNK_DOCUMENTS:
            yield texts[:CHUNK_DOCUMENTS]
            texts = texts[CHUNK_DOCUMENTS:]
    if texts:
        yield texts
