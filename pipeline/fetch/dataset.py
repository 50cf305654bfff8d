"""A data set that `datasets` can stream, into a folder of Parquet pieces that the Parquet source reads."""

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
from data_catalog.format.manifest import replacing, sha256_file, write_json
from pipeline.config import Dataset
from pipeline.fetch.record import Entry, Record, open_record
from pipeline.source.backoff import PATIENCE, Patience, is_passing
from pipeline.source.stream import Stream, find_dataset, label_of, load_builder, version_of

if TYPE_CHECKING:
    from datasets import IterableDataset

logger = logging.getLogger(__name__)

POSITION = "_position.json"  # readers of Parquet folders pass over names that begin so
RECORD = "_fetch.jsonl"
PIECE_BYTES = 256 * 2**20  # a piece that has grown to so many ends, however few rows it has
_BATCH_ROWS = 1_000
_WRITING = {"compression": "zstd", "write_page_checksum": True}

OnPiece = Callable[[int, int, int], None]  # pieces, rows and bytes so far


@dataclass(frozen=True)
class Streamed:
    """What a folder holds of a data set."""

    pieces: int
    rows: int
    bytes: int
    finished: bool  # the data set has no more, or no more were asked for


def fetch_dataset(
    root: Path,
    source: Dataset,
    *,
    keep: Sequence[str] = (),
    rows_per_piece: int = 100_000,
    max_rows: int | None = None,
    patience: Patience = PATIENCE,
    on_piece: OnPiece | None = None,
) -> Streamed:
    """Stream `source` into `root/part-NNNNN.parquet`, the rows in their order, and go on from `root/_position.json` if that is there.

    The position is written by rename after its piece: killed at any point, the next call repeats no row and loses none, and gives the same
    files. `keep` names the columns to keep, all if empty. Memory: a thousand rows, and what Parquet holds of a piece.

    Raises:
        UserError: the data set cannot be found or read, or `root` holds another one, or a changed version of it.
    """
    builder, dataset = find_dataset(source, "name")
    if missing := sorted(set(keep) - set(dataset.column_names or keep)):
        raise UserError(
            f"keep: {source.name} has no column {', '.join(missing)}; it has {', '.join(dataset.column_names)}"
        )
    identity = {
        **source.model_dump(mode="json", exclude={"columns", "kind", "name"}),
        "label": label_of(source),
        "keep": list(keep),
    }
    identity["version"] = version_of(builder, source.split)
    with open_record(root, RECORD) as record:
        pieces = _Pieces(root, record, identity, on_piece)

        def open_dataset() -> "IterableDataset":
            opened = load_builder(source).as_streaming_dataset(split=source.split)
            return opened.select_columns(list(keep)) if keep else opened

        stream = Stream(open_dataset, pieces.position, patience)
        schema = dataset.features.arrow_schema if dataset.features else None
        pieces.fill(
            stream,
            pa.schema([schema.field(name) for name in keep]) if keep and schema else schema,
            rows_per_piece,
            max_rows,
        )
        return pieces.streamed


class _Pieces:
    """The folder's pieces and the position after the last of them."""

    def __init__(
        self, root: Path, record: Record, identity: dict[str, Any], on_piece: OnPiece | None
    ) -> None:
        self.root, self._record, self._identity, self._on_piece = root, record, identity, on_piece
        self.position: dict[str, Any] | None = None
        self.streamed = Streamed(0, 0, 0, False)
        for stale in root.glob(".part-*.tmp"):
            stale.unlink()
        if not (root / POSITION).is_file():
            return
        try:
            found = json.loads((root / POSITION).read_text(encoding="utf-8"))
            there, self.position, self.streamed = (
                found["dataset"],
                found["position"],
                Streamed(**found["streamed"]),
            )
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"{root / POSITION}: not what fetch dataset writes; choose another folder"
            ) from error
        if there != identity:
            changed = ", ".join(key for key in identity if there.get(key) != identity[key])
            raise UserError(
                f"{root}: holds {there.get('label')}, fetched with another {changed}; choose another folder, or delete this one"
            )

    def fill(
        self, stream: Stream, schema: pa.Schema | None, rows_per_piece: int, max_rows: int | None
    ) -> None:
        """Write pieces until the stream ends or `max_rows` are there."""
        batches = _Batches(stream, self.position)
        while not self.streamed.finished:
            wanted = (
                rows_per_piece
                if max_rows is None
                else min(rows_per_piece, max_rows - self.streamed.rows)
            )
            if wanted <= 0:
                return
            first = batches.peek(wanted, schema)
            if first is None:
                self._commit(batches, None, 0)
                return
            name = f"part-{self.streamed.pieces:05d}.parquet"
            rows = 0
            # Renamed when the writer has closed it, hence the order.
            with (
                replacing(self.root / name) as temporary,
                pq.ParquetWriter(temporary, first.schema, **_WRITING) as writer,
            ):
                while rows < wanted and temporary.stat().st_size < PIECE_BYTES:
                    table = batches.peek(wanted - rows, schema)
                    if table is None or not table.schema.equals(first.schema):
                        break
                    writer.write_table(table)
                    rows += table.num_rows
                    batches.take()
            self._commit(batches, name, rows)

    def _commit(self, batches: "_Batches", name: str | None, rows: int) -> None:
        done = self.streamed
        size = (self.root / name).stat().st_size if name else 0
        self.position = batches.position
        self.streamed = Streamed(
            done.pieces + bool(name), done.rows + rows, done.bytes + size, finished=name is None
        )
        write_json(
            self.root / POSITION,
            {
                "dataset": self._identity,
                "position": self.position,
                "streamed": self.streamed.__dict__,
            },
        )
        if name:
            self._record.add(
                Entry(
                    path=name,
                    state="fetched",
                    bytes=size,
                    sha256=sha256_file(self.root / name),
                    attempts=1,
                )
            )
            if self._on_piece is not None:
                self._on_piece(self.streamed.pieces, self.streamed.rows, self.streamed.bytes)


class _Batches:
    """Rows of a stream as tables; the position is the one after the last batch taken, never that of the one only looked at."""

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
                "check the network and start again"
                if is_passing(error)
                else "its own file is at fault"
            )
            raise UserError(
                f"fetch dataset: {type(error).__name__}: {str(error)[:300]}; {hint}; what is written stays"
            ) from error

    def peek(self, rows: int, schema: pa.Schema | None) -> pa.Table | None:
        """The next at most `rows` rows, or None at the end; the same until it is taken."""
        if self._ahead is None:
            found = list(islice(self._rows, min(rows, _BATCH_ROWS)))
            self._ahead = _to_table(found, schema) if found else None
        return self._ahead

    def take(self) -> None:
        self._ahead, self.position = None, self._stream.position()


def _to_table(rows: list[dict[str, Any]], schema: pa.Schema | None) -> pa.Table:
    if schema is None:
        names = list(dict.fromkeys(name for row in rows for name in row))
        rows = [{name: row.get(name) for name in names} for row in rows]
    try:
        return pa.Table.from_pylist(rows, schema=schema)
    except (pa.ArrowException, TypeError) as error:
        raise UserError(
            f"fetch dataset: rows cannot be written as Parquet ({str(error)[:200]}); name the columns to keep"
        ) from error
