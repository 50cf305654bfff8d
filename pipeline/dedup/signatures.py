"""MinHash signatures: the corpus's own bands, or computed ones of the same definition.

The definition of RedPajama-V2: 13-word shingles of the normalised text, the first 32 bits of the
SHA-1 of each, 128 universal hash functions of `datasketch` with seed 42, the minimum of each
function, cut into bands. Two texts of Jaccard similarity s share a band of r values with
probability s^r.
"""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data_catalog.format import tables
from data_catalog.format.accounts import Account
from data_catalog.format.manifest import fingerprint
from data_catalog.place import Folder
from pipeline.config import Dedup
from pipeline.grams import GRAM_WORDS, normalise
from pipeline.location import is_file_fault
from pipeline.parts import Part, make_part
from pipeline.source.documents import Input, Shard
from pipeline.source.stage import DOCUMENTS_FILE

if TYPE_CHECKING:
    from datasketch import MinHash

logger = logging.getLogger(__name__)

# Versions of the output:
# 1: MinHash signatures in bands.
VERSION = 1
SIGNATURES_FILE = "signatures.parquet"
# Number of bands and of values per band, by similarity.
BANDS = {0.7: (14, 9), 0.8: (9, 13), 0.9: (5, 25), 1.0: (1, 128)}
_FUNCTIONS, _SEED = 128, 42
_BATCH_ROWS = 1_024
# Shingles hashed at once, so that their values stay in the cache for long documents.
_CHUNK_SHINGLES = 256


def sign_part(shard: Shard, source: Part, folder: Folder, config: Dedup) -> Part:
    """Write `signatures.parquet` (tables.SIGNATURES), rows in the order of `source`.

    A document without a shipped signature (no file, an unreadable file, a missing row) gets a
    computed one, which equals what would be shipped. Memory: the shipped bands of one file, about
    500 bytes per document, or the shingles of one document.
    """
    similarity = config.similarity
    shipped = next(
        (file for file in shard.beside if file.path == f"minhash/{shard.key}.minhash.parquet"), None
    )
    key = fingerprint("sign", VERSION, similarity, source.fingerprint, shipped)

    def make(out: Path) -> Account:
        bands = _read_shipped(shard, shipped, similarity) if shipped else None
        with (
            pq.ParquetFile(source.file(DOCUMENTS_FILE), pre_buffer=False) as file,
            pq.ParquetWriter(out / SIGNATURES_FILE, tables.SIGNATURES) as writer,
        ):
            for batch in file.iter_batches(_BATCH_ROWS, columns=["doc_id", "text"]):
                writer.write_batch(
                    pa.RecordBatch.from_arrays(
                        [_sign(batch, bands, similarity)], schema=tables.SIGNATURES
                    )
                )
        return Account(read=source.account.kept, kept=source.account.kept)

    return make_part(folder, key, make)


def sign(texts: list[str], similarity: float) -> Iterator[list[bytes] | None]:
    """Yield the bands of each text: values as big-endian uint32, or None for under 13 words."""
    from datasketch import MinHash  # noqa: PLC0415  loads SciPy

    sketch = MinHash(num_perm=_FUNCTIONS, seed=_SEED, scheme="legacy")
    bands, rows = BANDS[similarity]
    for text in texts:
        shingled = shingles(text)
        yield _bands(sketch, shingled, bands, rows) if shingled else None


def shingles(text: str) -> list[bytes]:
    """Return the distinct runs of 13 normalised words, as UTF-8."""
    words = normalise(text).split()
    return list(
        {" ".join(words[i : i + GRAM_WORDS]).encode() for i in range(len(words) - GRAM_WORDS + 1)}
    )


def _bands(sketch: "MinHash", shingled: list[bytes], bands: int, rows: int) -> list[bytes]:
    sketch.clear()
    for first in range(0, len(shingled), _CHUNK_SHINGLES):
        sketch.update_batch(shingled[first : first + _CHUNK_SHINGLES])
    values = sketch.digest().astype(">u4").tobytes()
    width = 4 * rows
    return [values[band * width : (band + 1) * width] for band in range(bands)]


def _sign(batch: pa.RecordBatch, shipped: pa.Table | None, similarity: float) -> pa.Array:
    """Return the shipped bands of documents that have them, and computed ones for the others."""
    wanted = tables.SIGNATURES.field("bands").type
    places = (
        pa.nulls(len(batch), pa.int32())
        if shipped is None
        else pc.index_in(batch["doc_id"], value_set=shipped["id"])
    )
    missing = places.is_null().to_numpy(zero_copy_only=False).nonzero()[0]
    if shipped is not None and not len(missing):
        return shipped["bands"].take(places).combine_chunks().cast(wanted)
    signatures = (
        [None] * len(batch) if shipped is None else shipped["bands"].take(places).to_pylist()
    )
    texts = batch["text"].take(pa.array(missing)).to_pylist()
    for row, bands in zip(missing.tolist(), sign(texts, similarity), strict=True):
        signatures[row] = bands
    return pa.array(signatures, wanted)


def _read_shipped(shard: Shard, file: Input, similarity: float) -> pa.Table | None:
    """Return the columns `id` and `bands` of a shipped file.

    Returns None, with a warning, if the file cannot be read or its bands have another shape.
    """
    column = f"signature_sim{similarity}"
    try:
        with (shard.root / file.path).open("rb") as stream:
            table = pq.read_table(stream, columns=["id", column]).rename_columns(["id", "bands"])
        table = table.filter(pc.is_valid(table["id"])).cast(
            pa.schema([("id", pa.string()), tables.SIGNATURES.field("bands")])
        )
    except (OSError, pa.ArrowException, ValueError) as error:
        if isinstance(error, OSError) and not is_file_fault(error, shard.root):
            raise
        logger.warning(
            "%s: %s; its documents' signatures are computed",
            file.path,
            str(error).splitlines()[0][:200],
        )
        return None
    bands, rows = BANDS[similarity]
    shapes = pc.list_value_length(table["bands"]), pc.binary_length(pc.list_flatten(table["bands"]))
    if any(
        pc.any(pc.not_equal(found, expected)).as_py()
        for found, expected in zip(shapes, (bands, 4 * rows), strict=True)
    ):
        logger.warning(
            "%s: %s is not %d bands of %d values; its documents' signatures are computed",
            file.path,
            column,
            bands,
            rows,
        )
        return None
    return table
