"""The documents of a source part that quality and dedup kept, in order."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from jaxtyping import Bool

from data_catalog.format import tables
from data_catalog.format.manifest import fingerprint
from pipeline.parts import Part
from pipeline.source.stage import CONTENT_KEY

_BATCH_ROWS = 4_096
_MASK = b"clustermix.kept"  # key of the file's metadata: which rows are kept, hashed


def write_verdicts(path: Path, verdicts: pa.Table) -> None:
    """Write the verdicts on one part (tables.VERDICTS).

    The hash of the rows that are kept goes into the file's metadata.
    """
    digest = _digest(pc.is_null(verdicts["reason"]).to_numpy())
    pq.write_table(
        verdicts.cast(tables.VERDICTS).replace_schema_metadata({_MASK: digest}),
        path,
        compression="zstd",
    )


def read_verdicts(part: Part, verdicts: Part) -> pa.Table:
    """Return the final verdict on every document of `part`, in its order (tables.VERDICTS)."""
    return pq.read_table(_file(part, verdicts))


def kept_key(part: Part, verdicts: Part) -> str:
    """Return a fingerprint of the kept documents of `part`: their ids, texts and order.

    Later stages depend on this and not on `part.fingerprint` and `verdicts.fingerprint`. The key
    stays the same if the corpus is copied elsewhere, or if another target, shard or threshold
    leaves the same documents in the part. Reads the footers of two files.
    """
    content = (pq.read_schema(part.folder / "documents.parquet").metadata or {}).get(
        CONTENT_KEY.encode()
    )
    digest = (pq.read_schema(_file(part, verdicts)).metadata or {}).get(_MASK)
    if digest is None:
        digest = _digest(
            pc.is_null(
                pq.read_table(_file(part, verdicts), columns=["reason"])["reason"]
            ).to_numpy()
        )
    return fingerprint("kept", content.decode() if content else part.fingerprint, digest.decode())


def kept_batches(part: Part, verdicts: Part, columns: list[str]) -> Iterator[pa.Table]:
    """Yield the kept documents of `part`, reading `_BATCH_ROWS` at a time."""
    keep = pc.is_null(read_verdicts(part, verdicts)["reason"])
    start = 0
    with pq.ParquetFile(part.folder / "documents.parquet", pre_buffer=False) as file:
        for batch in file.iter_batches(_BATCH_ROWS, columns=columns):
            yield pa.Table.from_batches([batch]).filter(keep.slice(start, len(batch)))
            start += len(batch)


def _file(part: Part, verdicts: Part) -> Path:
    return verdicts.folder / f"{part.name}.parquet"


def _digest(kept: Bool[np.ndarray, " documents"]) -> bytes:
    return (
        hashlib.sha256(len(kept).to_bytes(8, "little") + np.packbits(kept).tobytes())
        .hexdigest()
        .encode()
    )
