"""Fetch a dataset that `datasets` can stream, as Parquet files that the Parquet source reads."""

import json
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from data_catalog.errors import UserError
from data_catalog.format.manifest import sha256_file, write_json
from data_catalog.temporary import remove_unfinished, replacing
from pipeline.fetch.record import FetchEntry, FetchRecord, open_record
from pipeline.source.backoff import DEFAULT_RETRIES, RetryPolicy, is_transient
from pipeline.source.config import Dataset
from pipeline.source.stream import (
    Stream,
    dataset_label,
    dataset_version,
    find_dataset,
    load_builder,
)

if TYPE_CHECKING:
    from datasets import IterableDataset

logger = logging.getLogger(__name__)

# Readers of Parquet folders skip names that start with an underscore.
_POSITION_FILE = "_position.json"
_RECORD_FILE = "_fetch.jsonl"
PIECE_BYTES = 256 * 2**20  # a piece ends when it has this size, however few rows it has
_BATCH_ROWS = 1_000
_WRITER_OPTIONS = {"compression": "zstd", "write_page_checksum": True}

OnPiece = Callable[[int, int, int], None]  # called with the pieces, rows and bytes so far


@dataclass(frozen=True)
class FetchedDataset:
    """The part of a dataset that a folder holds."""

    pieces: int
    rows: int
    bytes: int
    finished: bool
    """True if the end of the dataset was reached."""


def fetch_dataset(
    root: Path,
    source: Dataset,
    *,
    keep: Sequence[str] = (),
    rows_per_piece: int = 100_000,
    max_rows: int | None = None,
    retries: RetryPolicy = DEFAULT_RETRIES,
    on_piece: OnPiece | None = None,
) -> FetchedDataset:
    """Stream a dataset into `root/part-NNNNN.parquet`, with the rows in their order.

    The fetch resumes from `root/_position.json`, which is replaced after each piece. A fetch that
    was killed at any point repeats no row, loses none and gives the same files. Memory holds a
    thousand rows and one piece as Parquet.

    Args:
        root: Folder for the pieces.
        source: The dataset. Its columns are not used.
        keep: Names of the columns to keep. Empty for all.
        rows_per_piece: Maximum rows per piece.
        max_rows: Maximum rows in total. None for all.
        retries: Retries after network errors.
        on_piece: Called after each piece.

    Returns:
        The number of pieces, rows and bytes in the folder.

    Raises:
        UserError: The dataset cannot be found or read, or `root` holds another dataset or
            another version.
    """
    builder, dataset = find_dataset(source, "name")
    columns = dataset.column_names
    if missing := sorted(set(keep) - set(columns or keep)):
        raise UserError(
            f"keep: {source.name} has no column {', '.join(missing)}. "
            f"Its columns are {', '.join(columns)}."
        )
    identity = {
        **source.model_dump(mode="json", exclude={"columns", "kind", "name"}),
        "label": dataset_label(source),
        "keep": list(keep),
    }
    identity["version"] = dataset_version(builder, source.split)
    with open_record(root, _RECORD_FILE) as record:
        folder = _PieceFolder(root, record, identity, on_piece)

        def open_dataset() -> "IterableDataset":
            opened = load_builder(source).as_streaming_dataset(split=source.split)
            return opened.select_columns(list(keep)) if keep else opened

        stream = Stream(open_dataset, folder.position, retries)
        schema = dataset.features.arrow_schema if dataset.features else None
        folder.fill(
            stream,
            pa.schema([schema.field(name) for name in keep]) if keep and schema else schema,
            rows_per_piece,
            max_rows,
        )
        return folder.fetched


class _PieceFolder:
    """The pieces in a folder, and the position after the last one."""

    def __init__(
        self, root: Path, record: FetchRecord, identity: dict[str, Any], on_piece: OnPiece | None
    ) -> None:
        self.root, self._record, self._identity, self._on_piece = root, record, identity, on_piece
        self.position: dict[str, Any] | None = None
        self.fetched = FetchedDataset(0, 0, 0, False)
        remove_unfinished((root,))
        if not (root / _POSITION_FILE).is_file():
            return
        try:
            stored = json.loads((root / _POSITION_FILE).read_text(encoding="utf-8"))
            stored_identity, self.position = stored["dataset"], stored["position"]
            self.fetched = FetchedDataset(**stored["streamed"])
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"{root / _POSITION_FILE}: this file was not written by `fetch dataset`. "
                "Choose another folder."
            ) from error
        if stored_identity != identity:
            changed = ", ".join(
                key for key in identity if stored_identity.get(key) != identity[key]
            )
            raise UserError(
                f"{root}: the folder holds {stored_identity.get('label')}, fetched with another "
                f"{changed}. Choose another folder, or delete this one."
            )

    def fill(
        self, stream: Stream, schema: pa.Schema | None, rows_per_piece: int, max_rows: int | None
    ) -> None:
        """Write pieces until the stream ends or the folder has `max_rows`."""
        batches = _RowBatches(stream, self.position)
        while not self.fetched.finished:
            wanted = (
                rows_per_piece
                if max_rows is None
                else min(rows_per_piece, max_rows - self.fetched.rows)
            )
            if wanted <= 0:
                return
            first = batches.peek(wanted, schema)
            if first is None:
                self._commit(batches, None, 0)
                return
            name = f"part-{self.fetched.pieces:05d}.parquet"
            rows = 0
            # The writer closes the file before it is renamed, hence the order.
            with (
                replacing(self.root / name) as temporary,
                pq.ParquetWriter(temporary, first.schema, **_WRITER_OPTIONS) as writer,
            ):
                while rows < wanted and temporary.stat().st_size < PIECE_BYTES:
                    table = batches.peek(wanted - rows, schema)
                    if table is None or not table.schema.equals(first.schema):
                        break
                    writer.write_table(table)
                    rows += table.num_rows
                    batches.take()
            self._commit(batches, name, rows)

    def _commit(self, batches: "_RowBatches", name: str | None, rows: int) -> None:
        before = self.fetched
        size = (self.root / name).stat().st_size if name else 0
        self.position = batches.position
        self.fetched = FetchedDataset(
            before.pieces + bool(name),
            before.rows + rows,
            before.bytes + size,
            finished=name is None,
        )
        write_json(
            self.root / _POSITION_FILE,
            {
                "dataset": self._identity,
                "position": self.position,
                "streamed": self.fetched.__dict__,
            },
        )
        if name:
            self._record.add(
                FetchEntry(
                    path=name,
                    state="fetched",
                    bytes=size,
                    sha256=sha256_file(self.root / name),
                    attempts=1,
                )
            )
            if self._on_piece is not None:
                self._on_piece(self.fetched.pieces, self.fetched.rows, self.fetched.bytes)


class _RowBatches:
    """The rows of a stream as tables.

    The position is the one after the last batch that was taken. A batch that was only peeked at
    does not move it.
    """

    def __init__(self, stream: Stream, position: dict[str, Any] | None) -> None:
        self._stream, self._rows = stream, self._read(stream)
        self._ahead: pa.Table | None = None
        self.position = position

    @staticmethod
    def _read(stream: Stream) -> Iterator[dict[str, Any]]:
        try:
            yield from stream
        except Exception as error:
            hint = (
                "Check the network and start again."
                if is_transient(error)
                else "One of its files is damaged."
            )
            raise UserError(
                f"fetch dataset: {type(error).__name__}: {str(error)[:300]}. {hint} "
                "The pieces that were written are kept."
            ) from error

    def peek(self, rows: int, schema: pa.Schema | None) -> pa.Table | None:
        """Return the next rows, at most `rows`, or None at the end. They stay next until taken."""
        if self._ahead is None:
            batch = list(islice(self._rows, min(rows, _BATCH_ROWS)))
            self._ahead = _to_table(batch, schema) if batch else None
        return self._ahead

    def take(self) -> None:
        """Move past the batch that `peek` returned."""
        self._ahead, self.position = None, self._stream.position()


def _to_table(rows: list[dict[str, Any]], schema: pa.Schema | None) -> pa.Table:
    if schema is None:
        names = list(dict.fromkeys(name for row in rows for name in row))
        rows = [{name: row.get(name) for name in names} for row in rows]
    try:
        return pa.Table.from_pylist(rows, schema=schema)
    except (pa.ArrowException, TypeError) as error:
        raise UserError(
            f"fetch dataset: rows cannot be written as Parquet ({str(error)[:200]}). "
            "Name the columns to keep."
        ) from error
