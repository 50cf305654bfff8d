"""Records in buckets by the first bits of a key, so that equal keys of all parts meet in one task.

Each part writes its records sorted by key, with the bounds of the buckets. The task of a bucket
reads one range of each part's file. The number of buckets is a power of two and depends on the
number of documents only, so it is the same for every engine and machine.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import pyarrow as pa
from jaxtyping import UInt64

from pipeline.parts import Part

CHUNK_ROWS = 65_536  # records that are read or written at once
_RECORDS_FILE = "records.bin"  # records of a fixed length, without a header
_BOUNDS_FILE = "bounds.npy"  # int64: where the records of each bucket begin, and the end


def bucket_count(records: int, most: int) -> int:
    """Return the smallest power of two for which buckets have at most `most` records on average."""
    return 1 << max(-(-records // most) - 1, 0).bit_length()


def write_records(
    folder: Path,
    keys: UInt64[np.ndarray, " records"],
    buckets: int,
    chunks: Iterable[np.ndarray],
) -> None:
    """Write records of one structured type.

    Args:
        folder: Folder of the part.
        keys: Key of each record, ascending.
        buckets: Number of buckets.
        chunks: The records, in the order of the keys.
    """
    first_bits = keys >> np.uint64(64 - (buckets.bit_length() - 1)) if buckets > 1 else keys * 0
    bounds = np.searchsorted(first_bits, np.arange(buckets + 1, dtype=np.uint64))
    np.save(folder / _BOUNDS_FILE, bounds.astype(np.int64), allow_pickle=False)
    with (folder / _RECORDS_FILE).open("wb") as file:
        for chunk in chunks:
            file.write(chunk.tobytes())


def read_records(parts: Sequence[Part], bucket: int, record: np.dtype) -> Iterator[np.ndarray]:
    """Yield the records of a bucket, in the order of the parts, `CHUNK_ROWS` at a time."""
    for part in parts:
        bounds = np.load(part.file(_BOUNDS_FILE), allow_pickle=False)
        first, end = bounds[bucket : bucket + 2].tolist()
        source = part.readable(_RECORDS_FILE)
        with source.open("rb") if isinstance(source, Path) else closing(source) as file:
            file.seek(first * record.itemsize)
            while first < end:
                rows = min(CHUNK_ROWS, end - first)
                yield np.frombuffer(file.read(rows * record.itemsize), record)
                first += rows


def record_reader(chunks: Iterable[np.ndarray], record: np.dtype) -> pa.RecordBatchReader:
    """Return the records as a stream of Arrow batches. Fields of bytes get a fixed length."""

    def column(values: np.ndarray) -> pa.Array:
        values = np.ascontiguousarray(values)
        if values.dtype.kind != "V":
            return pa.array(values)
        kind = pa.binary(values.dtype.itemsize)
        return pa.Array.from_buffers(kind, len(values), [None, pa.py_buffer(values)])

    names = record.names or ()
    schema = pa.schema([(name, column(np.empty(0, record)[name]).type) for name in names])
    batches = (
        pa.RecordBatch.from_arrays([column(chunk[name]) for name in names], schema=schema)
        for chunk in chunks
    )
    return pa.RecordBatchReader.from_batches(schema, batches)
