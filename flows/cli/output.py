"""Output of a command: sentences and tables for a person, or one JSON value for a script."""

import io
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any

from data_catalog.errors import UserError


class OutputClosed(BaseException):
    """Nobody reads standard output any more, as after `| head`.

    Not an `OSError`: rich and Typer end a command with exit code 1 on those.
    """


class _Output(io.FileIO):
    """Standard output. A character or a byte that cannot be written ends a command in order."""

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            raise OutputClosed from None
        except OSError as error:
            raise UserError(
                f"standard output: cannot be written ({error.strerror}). Write it to another place."
            ) from error


class _Messages(io.FileIO):
    """Standard error. What cannot be written is discarded."""

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError:
            return memoryview(data).nbytes


def protect_output() -> None:
    """Replace the standard streams of this process, so that printing never fails by surprise.

    Characters that the encoding lacks become question marks. Standard output raises `OutputClosed`
    if its reader is gone, and `UserError` if it cannot be written for another reason.
    """
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:  # closed: the next file that is opened would become a standard stream
            os.open(os.devnull, os.O_RDWR)
    for name, kind in (("stdout", _Output), ("stderr", _Messages)):
        stream = getattr(sys, name)
        if type(stream) is io.TextIOWrapper and stream is getattr(sys, f"__{name}__"):
            stream.flush()
            file = kind(stream.fileno(), "w", closefd=False)
            buffered = file if stream.write_through else io.BufferedWriter(file)
            replacement = io.TextIOWrapper(
                buffered,
                stream.encoding,
                errors="replace",
                line_buffering=stream.line_buffering,
                write_through=stream.write_through,
            )
            setattr(sys, name, replacement)


def flush_output() -> None:
    """Write what standard output holds. Raises what printing raises."""
    if sys.stdout is not None:  # None if it was closed before the command started
        sys.stdout.flush()


def discard_output() -> None:
    """Discard what standard output holds and all that follows."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.close(null)
    flush_output()


@contextmanager
def stdout_for_json(as_json: bool) -> Iterator[None]:
    """Redirect prints of the block to standard error if standard output is reserved for JSON."""
    if not as_json:
        yield
        return
    with redirect_stdout(sys.stderr):
        yield


def print_json(value: Any) -> None:
    """Print `value` as indented JSON.

    Paths and dates become text. NaN and infinity, which JSON lacks, become null.
    """
    print(json.dumps(_finite(value), indent=2, default=str, ensure_ascii=False))


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if value - value == 0 else None
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
