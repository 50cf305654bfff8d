"""Open files that may be compressed. Their first bytes decide, since names may be wrong."""

import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import pyarrow as pa

from pipeline.location import File, is_file_fault, is_local
from pipeline.source.documents import Fault

COMPRESSIONS = ("", ".gz", ".zst", ".zstd")
"""Endings of compressed files, after the ending of their content."""
_BUFFER_BYTES = 2**18
_START_BYTES = 4_096
_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
_SKIPPABLE = b"\x2a\x4d\x18"  # bytes 1 to 3 of a zstd frame that holds no data
_FORMATS = {  # first bytes of files that hold no text -> name
    b"BZh": "a bzip2 file",
    b"\xfd7zXZ\0": "an xz file",
    b"PK\x03\x04": "a zip archive",
    b"\x04\x22\x4d\x18": "an lz4 file",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive",
    b"PAR1": "a Parquet file",
    b"ARROW1": "an Arrow file",
    b"%PDF-": "a PDF file",
    b"SQLite format 3\0": "an SQLite database",
}
_BYTE_ORDER_MARKS = {
    b"\xff\xfe\0\0": "UTF-32",
    b"\0\0\xfe\xff": "UTF-32",
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
}


class BadZstdError(OSError):
    """A zstd stream is damaged."""


class OtherFormatError(OSError):
    """A file holds another format than its reader reads."""


@contextmanager
def open_unpacked(file: File) -> Iterator[Any]:
    """Open a file and decompress it if it is gzip or zstd. Give None if the file is empty.

    All frames and members are read, one after the other.

    Raises:
        EOFError: While reading: a compressed stream ends too early.
        gzip.BadGzipFile, zlib.error, BadZstdError: While reading: a stream is damaged.
        OtherFormatError: The file's first bytes are those of another binary format.
        OSError: The file cannot be read.
    """
    with file.open("rb") as raw:
        start = raw.read(_START_BYTES)
        if not start:
            yield None
            return
        size = raw.seek(0, io.SEEK_END)
        raw.seek(0)
        if other := next((name for magic, name in _FORMATS.items() if start.startswith(magic)), ""):
            raise OtherFormatError(f"this is {other}")
        try:
            kind = _compression(start, file.name.lower())
            if kind == "gzip":
                with gzip.GzipFile(fileobj=raw, mode="rb") as unpacked:
                    # A buffered reader splits lines in C.
                    yield PackedFile(_GzipBlocks(unpacked), size)
            elif kind == "zstd":
                yield PackedFile(_ZstdBlocks(file, raw), size)
            else:
                # The files of fsspec do not stop a line at a limit.
                yield raw if is_local(file) else io.BufferedReader(raw, _BUFFER_BYTES)
        except (EOFError, gzip.BadGzipFile, zlib.error, BadZstdError) as error:
            unread = 1 - raw.tell() / size
            if unread >= 0.01:
                error.add_note(f"{unread:.0%} of the file's bytes were not read")
            raise


def _compression(start: bytes, name: str) -> Literal["gzip", "zstd"] | None:
    """Return how a file is compressed: by its first bytes, or by its name if they are no text."""
    if start.startswith(_GZIP):
        return "gzip"
    if start.startswith(_ZSTD) or start[1:4] == _SKIPPABLE:
        return "zstd"
    if _is_text(start):
        return None
    if name.endswith(".gz"):
        return "gzip"
    return "zstd" if name.endswith((".zst", ".zstd")) else None


def _is_text(start: bytes) -> bool:
    """Return whether the first bytes of a file can be the beginning of a text."""
    if any(start.startswith(mark) for mark in _BYTE_ORDER_MARKS):
        return True
    try:
        start.decode()
    except UnicodeDecodeError as error:
        if error.start < len(start) - 3:  # not a character that the end cuts
            return False
    return b"\0" not in start


class PackedFile(io.BufferedReader):
    """A compressed file, decompressed."""

    def __init__(self, blocks: io.RawIOBase, stored_bytes: int) -> None:
        super().__init__(blocks, _BUFFER_BYTES)
        self.stored_bytes = stored_bytes


class _GzipBlocks(io.RawIOBase):
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


class _ZstdBlocks(io.RawIOBase):
    """A zstd file, decompressed. All bytes before damage are given out before the error is raised.

    Arrow drops the bytes of a read that fails, so the last bytes before damage are read again, one
    by one.
    """

    def __init__(self, file: File, raw: Any) -> None:
        self._file, self._stream = file, _zstd_stream(raw)
        self._position, self._rest = 0, b""
        self._error: OSError | EOFError | None = None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if self._error is None:
            try:
                block = self._stream.read(len(buffer))
            except OSError as error:
                if type(error) is not OSError or error.errno is not None:
                    raise
                message = str(error)
                self._error = EOFError(message) if "runcated" in message else BadZstdError(message)
                self._rest = self._before_damage(len(buffer))
            else:
                self._position += len(block)
                buffer[: len(block)] = block
                return len(block)
        if not self._rest:
            raise self._error
        block, self._rest = self._rest[: len(buffer)], self._rest[len(buffer) :]
        buffer[: len(block)] = block
        return len(block)

    def _before_damage(self, maximum: int) -> bytes:
        rest = bytearray()
        with self._file.open("rb") as raw:
            again = _zstd_stream(raw)
            left = self._position
            while left:
                left -= len(again.read(min(left, _BUFFER_BYTES)))
            try:
                while len(rest) < maximum and (byte := again.read(1)):
                    rest += byte
            except OSError as error:
                if type(error) is not OSError or error.errno is not None:
                    raise
        return bytes(rest)


def _zstd_stream(raw: Any) -> pa.CompressedInputStream:
    return pa.CompressedInputStream(pa.PythonFile(raw, mode="r"), "zstd")


def damage_fault(
    error: EOFError | OSError | zlib.error, file: File, label: str, where: str
) -> Fault:
    """Return the fault of a file that an error while reading shows.

    `where` is the last position that could be read.

    Raises:
        OSError: `error` itself, if it is about the network and not about the file.
    """
    where = "; ".join((where, *getattr(error, "__notes__", ())))
    if isinstance(error, EOFError):
        kind = "zstd" if "compressed stream" in str(error) else "gzip"
        detail = f"the {kind} stream ends too early, after {where}"
        return Fault(label, None, f"truncated_{kind}", detail)
    if isinstance(error, gzip.BadGzipFile | zlib.error):
        return Fault(label, None, "bad_gzip", f"{error}, after {where}")
    if isinstance(error, BadZstdError):
        return Fault(label, None, "bad_zstd", f"{error}, after {where}")
    if isinstance(error, OtherFormatError):
        return Fault(label, None, "other_format", f"{error}, expected text")
    if not is_file_fault(error, file):
        raise error
    return Fault(label, None, "unreadable_file", f"after {where}: {error.strerror or error}")


def other_encoding(start: bytes) -> str | None:
    """Return the encoding of a file that is UTF-16 or UTF-32 by its first bytes, else None.

    Without a byte order mark, it is seen from the zeros in its first two characters, which have to
    be ASCII.
    """
    for mark, encoding in _BYTE_ORDER_MARKS.items():
        if start.startswith(mark):
            return encoding
    for encoding, width in (("UTF-32", 4), ("UTF-16", 2)):
        for order in ("le", "be"):
            head = start[: 2 * width]
            name = f"{encoding.lower()}-{order}"
            if len(head) == 2 * width and _is_ascii(head.decode(name, "replace")):
                return encoding
    return None


def _is_ascii(text: str) -> bool:
    return text.isascii() and "\0" not in text
