"""JSON lines, read with bounded memory. Every line gives a record or a fault with a name."""

import json
import zlib
from codecs import BOM_UTF8
from collections.abc import Callable, Iterator
from typing import Any

from pipeline.location import File
from pipeline.source.documents import Fault
from pipeline.source.unpack import damage_fault, open_unpacked, other_encoding

# Maximum bytes of a text in UTF-8, in every kind of source. Later stages need memory in proportion.
TEXT_BYTES = 64 * 2**20
LINE_BYTES = TEXT_BYTES  # maximum bytes of a line; a gzip bomb is one line
_SKIP_BYTES = 2**20

_Record = tuple[int, dict[str, Any]]


def read_records(path: File, label: str, line_bytes: int = LINE_BYTES) -> Iterator[_Record | Fault]:
    """Yield `(row, record)` for each JSON object of a JSON lines file, in order.

    A line that holds no object gives a `Fault`, and so does damage to the file, after everything
    before it was yielded. Blank lines are skipped but numbered, and a note counts them. A byte
    order mark at the start of a line is ignored. A file that is one JSON array, or one object over
    several lines, is one fault. Memory stays within about three times `line_bytes`, whatever the
    file holds.

    Args:
        path: A plain, gzip or zstd file.
        label: Name of the file in faults.
        line_bytes: Maximum bytes of a line.

    Yields:
        A pair of the line's number, from 0, and its object, or a fault.

    Raises:
        OSError: The network failed. Reading again may help.
    """
    blank = 0
    opening: Fault | None = None  # the first line's fault, if it may open a larger value
    is_first = True
    for item in _lines(path, label, line_bytes):
        if isinstance(item, Fault):
            record: _Record | Fault = item
        else:
            row, line = item[0], item[1].removeprefix(BOM_UTF8)
            if not line.strip():
                blank += 1
                continue
            record = _parse(label, row, line)
            if is_first:
                is_first = False
                if isinstance(record, Fault) and _may_open(line.strip()):
                    opening = record
                    continue
        if opening:
            if isinstance(record, Fault) and record.row is not None and not _is_whole(opening):
                yield _one_value(label)
                return
            yield opening
            opening = None
        yield record
    if opening:
        yield _one_value(label)
    if blank:
        yield Fault(label, None, "blank_lines", f"{blank} lines", counted=False, records=blank)


def _may_open(line: bytes) -> bool:
    """Return whether a file's first line may be the beginning of one JSON value."""
    return line == b"{" or line.startswith(b"[")


def _is_whole(fault: Fault) -> bool:
    """Return whether the line is valid JSON, but no object."""
    return fault.detail.startswith(_NO_OBJECT)


def _one_value(label: str) -> Fault:
    detail = (
        "the file is one JSON value, not one per line. Write one object per line, for example "
        "with jq -c '.[]'"
    )
    return Fault(label, None, "not_json_lines", detail)


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


def _lines(path: File, label: str, line_bytes: int) -> Iterator[tuple[int, bytes] | Fault]:
    row = -1
    try:
        with open_unpacked(path) as file:
            if file is None:
                yield Fault(label, None, "empty_file", "the file has no bytes")
                return
            while line := file.readline(line_bytes + 1):
                row += 1
                if row == 0 and (encoding := other_encoding(line)):
                    detail = f"the file is {encoding}. Save it as UTF-8"
                    yield Fault(label, None, "bad_utf8", detail)
                    return
                if len(line) > line_bytes:
                    length = len(line) + _skip_line(file.readline, line)
                    yield Fault(
                        label, row, "line_too_long", f"{length} bytes, the limit is {line_bytes}"
                    )
                else:
                    yield row, line
    except (EOFError, OSError, zlib.error) as error:
        yield damage_fault(error, path, label, f"{row + 1} lines")


def _skip_line(read_line: Callable[[int], bytes], chunk: bytes) -> int:
    """Read to the end of the current line without holding it, and return the number of bytes."""
    skipped = 0
    while chunk and not chunk.endswith(b"\n"):
        chunk = read_line(_SKIP_BYTES)
        skipped += len(chunk)
    return skipped


_NO_OBJECT = "expected an object"


def _parse(label: str, row: int, line: bytes) -> _Record | Fault:
    try:
        record = json.loads(line.decode())
    except UnicodeDecodeError as error:
        return Fault(label, row, "bad_utf8", f"byte {error.start}: {error.reason}")
    except (ValueError, RecursionError) as error:
        return Fault(label, row, "not_json", str(error).split(":", maxsplit=1)[0])
    if not isinstance(record, dict):
        return Fault(label, row, "not_json", f"{_NO_OBJECT}, found {type(record).__name__}")
    return row, record
