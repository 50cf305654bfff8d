"""JSON lines read with bounded memory: every line gives a record or a named fault, and so does every way a file can be broken."""

import gzip
import io
import json
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, cast

from pipeline.location import Place, is_file_fault, is_local
from pipeline.source.documents import Fault

LINE_BYTES = (
    64 * 2**20
)  # a longer line is refused: no document is that long, and a gzip bomb is one line
_SKIP_BYTES = 2**20
_BUFFER_BYTES = 2**18


def read_records(
    path: Place, label: str, line_bytes: int = LINE_BYTES
) -> Iterator[tuple[int, dict[str, Any]] | Fault]:
    """Yield `(row, record)` for each JSON object of a plain or gzip file of JSON lines, in order; a `Fault` for all else.

    `row` is the 0-based line number. Blank lines hold no record and are passed over, but they are numbered.
    What can be read of a broken file is yielded before its fault. `label` names the file in faults.
    A file counts as gzip by its name, `*.gz`. Memory stays within about three times `line_bytes`, whatever the file holds.

    Raises:
        OSError: the network failed, not the file: read again.
    """
    for item in _lines(path, label, line_bytes):
        if isinstance(item, Fault):
            yield item
        elif item[1].strip():
            yield _parse(label, *item)


def text_fault(text: object, label: str, row: int, key: str) -> Fault | None:
    """Why a record's text cannot be a document, or None.

    A text is never edited: NUL characters stay, since they are valid in UTF-8, Arrow and DuckDB alike.
    Lone surrogates (`"\\ud800"` in JSON) are not: such a record is refused whole.
    """
    if not isinstance(text, str):
        return Fault(label, row, "no_text", f"{key} is {type(text).__name__}, expected a string")
    if not text.strip():
        return Fault(
            label, row, "empty_text", f"{key} is empty or white space", characters=len(text)
        )
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return Fault(
            label,
            row,
            "bad_unicode",
            f"{key} has a lone surrogate at character {error.start}",
            characters=len(text),
        )
    return None


def _lines(path: Place, label: str, line_bytes: int) -> Iterator[tuple[int, bytes] | Fault]:
    row = -1
    try:
        with open_unpacked(path) as file:
            if file is None:
                yield Fault(label, None, "empty_file", "the file has no bytes")
                return
            while line := file.readline(line_bytes + 1):
                row += 1
                if len(line) > line_bytes:
                    length = len(line) + _skip_line(file, line)
                    yield Fault(
                        label, row, "line_too_long", f"{length} bytes, the limit is {line_bytes}"
                    )
                else:
                    yield row, line
    except (EOFError, OSError, zlib.error) as error:
        yield damage(error, path, label, f"line {row}")


def damage(error: EOFError | OSError | zlib.error, path: Place, label: str, where: str) -> Fault:
    """What an error while reading says of the file; `where` is the last thing that could be read.

    Raises:
        OSError: it is `error`, and says nothing of the file.
    """
    if isinstance(error, EOFError):
        return Fault(
            label, None, "truncated_gzip", f"the gzip stream ends too early, after {where}"
        )
    if isinstance(error, gzip.BadGzipFile | zlib.error):
        return Fault(label, None, "bad_gzip", f"after {where}: {error}")
    if not is_file_fault(error, path):
        raise error
    return Fault(label, None, "unreadable_file", f"after {where}: {error.strerror or error}")


@contextmanager
def open_unpacked(path: Place) -> Iterator[BinaryIO | None]:
    """The file's bytes, unpacked if it is gzip; None if it has none."""
    with path.open("rb") as file:
        if not file.read(1):
            yield None
            return
        file.seek(0)
        if not path.name.lower().endswith(".gz"):
            # fsspec's own files cut no line at a limit
            yield (
                file
                if is_local(path)
                else io.BufferedReader(cast(io.RawIOBase, file), _BUFFER_BYTES)
            )
            return
        with gzip.GzipFile(fileobj=file, mode="rb") as unpacked:
            yield io.BufferedReader(_Unpacked(unpacked), _BUFFER_BYTES)  # cuts lines in C


class _Unpacked(io.RawIOBase):
    """A gzip file one decompressed block at a time: what came before an error is handed out before the error is raised."""

    def __init__(self, file: gzip.GzipFile) -> None:
        self._file = file

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        block = self._file.read1(len(buffer))
        buffer[: len(block)] = block
        return len(block)


def _skip_line(file: BinaryIO, chunk: bytes) -> int:
    """Read to the end of the current line without holding it; return how many bytes that were."""
    skipped = 0
    while chunk and not chunk.endswith(b"\n"):
        chunk = file.readline(_SKIP_BYTES)
        skipped += len(chunk)
    return skipped


def _parse(label: str, row: int, line: bytes) -> tuple[int, dict[str, Any]] | Fault:
    try:
        record = json.loads(line.decode("utf-8-sig" if row == 0 else "utf-8"))
    except UnicodeDecodeError as error:
        return Fault(label, row, "bad_utf8", f"byte {error.start}: {error.reason}")
    except (ValueError, RecursionError) as error:
        return Fault(label, row, "not_json", str(error).split(":", maxsplit=1)[0])
    if not isinstance(record, dict):
        return Fault(label, row, "not_json", f"expected an object, found {type(record).__name__}")
    return row, record
