"""JSON lines, read with bounded memory. Every line gives a record or a fault with a name."""

import gzip
import io
import json
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, cast

from pipeline.location import Place, is_file_fault, is_local
from pipeline.source.documents import Fault

# Maximum bytes of a text in UTF-8, in every kind of source. Later stages need memory in proportion.
TEXT_BYTES = 64 * 2**20
LINE_BYTES = TEXT_BYTES  # maximum bytes of a line; a gzip bomb is one line
_SKIP_BYTES = 2**20
_BUFFER_BYTES = 2**18


def read_records(
    path: Place, label: str, line_bytes: int = LINE_BYTES
) -> Iterator[tuple[int, dict[str, Any]] | Fault]:
    """Yield `(row, record)` for each JSON object of a JSON lines file, in order.

    A line that holds no object gives a `Fault`, and so does damage to the file, after everything
    before it was yielded. Blank lines are skipped but numbered. Memory stays within about three
    times `line_bytes`, whatever the file holds.

    Args:
        path: A plain file, or a gzip file if its name ends with `.gz`.
        label: Name of the file in faults.
        line_bytes: Maximum bytes of a line.

    Yields:
        A pair of the line's number, from 0, and its object, or a fault.

    Raises:
        OSError: The network failed. Reading again may help.
    """
    for item in _lines(path, label, line_bytes):
        if isinstance(item, Fault):
            yield item
        elif item[1].strip():
            yield _parse(label, *item)


def text_fault(text: object, label: str, row: int, key: str) -> Fault | None:
    """Return the reason why a record's text cannot be a document, or None.

    A text is never edited. NUL characters stay, since UTF-8, Arrow and DuckDB allow them. A text
    with lone surrogates (`"\\ud800"` in JSON), which UTF-8 cannot encode, is a fault, and so is
    one of more than `TEXT_BYTES`.

    Args:
        text: Value of the record's text field.
        label: Name of the file, for the fault.
        row: Row of the record in the file, from 0.
        key: Name of the text field, for the fault.
    """
    if not isinstance(text, str):
        return Fault(label, row, "no_text", f"{key} is {type(text).__name__}, expected a string")
    if not text.strip():
        return Fault(
            label, row, "empty_text", f"{key} is empty or white space", characters=len(text)
        )
    try:
        size = len(text.encode())
    except UnicodeEncodeError as error:
        return Fault(
            label,
            row,
            "bad_unicode",
            f"{key} has a lone surrogate at character {error.start}",
            characters=len(text),
        )
    if size > TEXT_BYTES:
        detail = f"{key} has {size} bytes, the limit is {TEXT_BYTES}"
        return Fault(label, row, "too_long", detail, characters=len(text))
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
                    length = len(line) + _skip_line(file.readline, line)
                    yield Fault(
                        label, row, "line_too_long", f"{length} bytes, the limit is {line_bytes}"
                    )
                else:
                    yield row, line
    except (EOFError, OSError, zlib.error) as error:
        yield damage_fault(error, path, label, f"line {row}")


def damage_fault(
    error: EOFError | OSError | zlib.error, path: Place, label: str, where: str
) -> Fault:
    """Return the fault of a file that an error while reading shows.

    `where` is the last position that could be read.

    Raises:
        OSError: `error` itself, if it is about the network and not about the file.
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
    """Open a file, decompressed if its name ends with `.gz`. Give None if the file is empty."""
    with path.open("rb") as file:
        if not file.read(1):
            yield None
            return
        file.seek(0)
        if not path.name.lower().endswith(".gz"):
            # The files of fsspec do not stop a line at a limit.
            yield (
                file
                if is_local(path)
                else io.BufferedReader(cast(io.RawIOBase, file), _BUFFER_BYTES)
            )
            return
        with gzip.GzipFile(fileobj=file, mode="rb") as unpacked:
            # A buffered reader splits lines in C.
            yield io.BufferedReader(_Unpacked(unpacked), _BUFFER_BYTES)


class _Unpacked(io.RawIOBase):
    """A gzip file, one decompressed block at a time.

    The blocks before damage are given out before the error is raised.
    """

    def __init__(self, file: gzip.GzipFile) -> None:
        self._file = file

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        block = self._file.read1(len(buffer))
        buffer[: len(block)] = block
        return len(block)


def _skip_line(read_line: Callable[[int], bytes], chunk: bytes) -> int:
    """Read to the end of the current line without holding it, and return the number of bytes."""
    skipped = 0
    while chunk and not chunk.endswith(b"\n"):
        chunk = read_line(_SKIP_BYTES)
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
