"""Read the documents of one domain from the row groups that contain them."""

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data_catalog.errors import UserError
from data_catalog.format import tables
from data_catalog.format.damage import reading
from data_catalog.format.files import CatalogFiles
from data_catalog.format.offsets import Offsets
from data_catalog.format.stored_file import StoredFile


def read_domain(
    files: CatalogFiles,
    offsets: Offsets,
    level: int,
    domain: int,
    columns: Sequence[str] | None = None,
) -> pa.Table:
    """Return the documents of one domain, sorted by leaf, then train before heldout.

    Only the files and row groups that contain the domain are read. Row groups end where a leaf
    ends.

    Args:
        files: The catalog.
        offsets: Its offsets.
        level: Granularity of the domain's level.
        domain: Number of the domain.
        columns: Columns of `tables.DOCUMENTS`. None means all.

    Raises:
        DamagedFileError: A file is missing or damaged.
        UserError: The level, domain or a column does not exist.
    """
    span = files.levels.span(level)
    if not 0 <= domain < level:
        raise UserError(f"domain {domain}: not in level {level}. Expected 0 to {level - 1}.")
    names = list(tables.DOCUMENTS.names if columns is None else columns)
    if unknown := sorted(set(names) - set(tables.DOCUMENTS.names)):
        raise UserError(
            f"columns {', '.join(unknown)}: unknown. The columns of documents are "
            f"{', '.join(tables.DOCUMENTS.names)}."
        )
    schema = pa.schema([tables.DOCUMENTS.field(name) for name in names])
    pieces = [schema.empty_table()]
    for rows in offsets.find(domain * span, (domain + 1) * span):
        path = files.layout.documents(rows.top, rows.part)
        files.verified.compare_small(path.relative_to(files.root).as_posix())
        stored = files.open_stored(path)
        with reading(path) if stored is None else nullcontext():
            piece = _read_rows(stored or path, rows.first, rows.count, names)
            pieces.append(piece.select(names).cast(schema))
    return pa.concat_tables(pieces)


def _read_rows(source: Path | StoredFile, first: int, count: int, columns: list[str]) -> pa.Table:
    with pq.ParquetFile(source, memory_map=isinstance(source, Path)) as file:
        sizes = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
        ends = np.cumsum(sizes)
        if first + count > (ends[-1] if len(ends) else 0):
            raise ValueError(f"found fewer than {first + count} rows")
        start, last = np.searchsorted(ends, [first, first + count - 1], side="right").tolist()
        before = int(ends[start]) - sizes[start]
        table = file.read_row_groups(list(range(start, last + 1)), columns=columns)
        return table.slice(first - before, count)
