"""The documents of a source part that quality and dedup kept, in order."""

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.parts import Part

BATCH_ROWS = 4_096


def read_verdicts(part: Part, verdicts: Part) -> pa.Table:
    """The final verdict on every document of `part`, in its order (tables.VERDICTS)."""
    return pq.read_table(verdicts.folder / f"{part.name}.parquet")


def kept_batches(part: Part, verdicts: Part, columns: list[str]) -> Iterator[pa.Table]:
    """Kept documents of `part`, `BATCH_ROWS` read at a time."""
    keep = pc.is_null(read_verdicts(part, verdicts)["reason"])
    start = 0
    with pq.ParquetFile(part.folder / "documents.parquet") as file:
        for batch in file.iter_batches(BATCH_ROWS, columns=columns):
            yield pa.Table.from_batches([batch]).filter(keep.slice(start, len(batch)))
            start += len(batch)
