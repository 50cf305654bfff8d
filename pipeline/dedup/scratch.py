"""A database on the machine's own disk, for more rows than fit in memory."""

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from data_catalog.disk import writing
from data_catalog.temporary import remove, remove_unfinished, temporary_path
from pipeline.dedup.buckets import CHUNK_ROWS

THREAD_MEGABYTES = 128
_SCRATCH = "clustermix-dedup"  # name of the folder of a database


@contextmanager
def scratch_database(memory_megabytes: int) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open an empty database in this machine's folder for temporary files (TMPDIR).

    Its files are removed afterwards, and those that killed processes have left are removed before.
    """
    parent = Path(tempfile.gettempdir())
    with suppress(PermissionError):  # those of other users
        remove_unfinished([parent], _SCRATCH)
    folder = temporary_path(parent / _SCRATCH)
    with writing(folder):
        folder.mkdir(0o700)
        settings: dict[str, str | bool | int | float | list[str]] = {
            "memory_limit": f"{memory_megabytes}MiB",
            "temp_directory": f"{folder}/spill",
            # A sort holds some blocks per thread, which cannot be spilled.
            "threads": max(1, min(os.cpu_count() or 1, memory_megabytes // THREAD_MEGABYTES)),
        }
        try:
            with duckdb.connect(f"{folder}/scratch.duckdb", config=settings) as connection:
                yield connection
        finally:
            remove(folder)


def stream(
    connection: duckdb.DuckDBPyConnection, query: str, parameters: Mapping[str, Any] | None = None
) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a query, `CHUNK_ROWS` at a time. They are never all in memory."""
    yield from connection.sql(query, params=dict(parameters or {})).to_arrow_reader(CHUNK_ROWS)
