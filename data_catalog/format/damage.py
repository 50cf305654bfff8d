"""One error for every file that is missing or damaged, and the readers that raise it."""

import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from data_catalog.errors import UserError
from data_catalog.place import Place

VERIFY_REMEDY = "Run `clustermix verify` to see which files are damaged."
_LONGEST_REASON = 300  # characters of a library's message


class DamagedFileError(UserError):
    """A file is missing, cannot be read, or has an impossible content."""

    def __init__(self, path: Path | Place, reason: str, remedy: str = VERIFY_REMEDY) -> None:
        """Set the message.

        Args:
            path: The file.
            reason: What is wrong, without a full stop.
            remedy: A sentence that says what to do.
        """
        super().__init__(f"{path}: cannot be read ({reason}). {remedy}")
        self.path, self.reason = Path(str(path)), reason


def unreadable(path: Path) -> str | None:
    """Return why `path` is no file that can be opened, or None.

    Opening a pipe would wait for a writer, so that only regular files are opened.
    """
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return "the file is missing"
    except (OSError, ValueError) as error:  # a name with a null byte is a ValueError
        return first_line(error)
    if stat.S_ISREG(mode):
        return None
    return "found a folder" if stat.S_ISDIR(mode) else "found no regular file"


def first_line(error: Exception) -> str:
    """Return the first line of a library's message, without a full stop."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    line = (text.strip().splitlines() or [type(error).__name__])[0]
    return line[:_LONGEST_REASON].rstrip(". ")


@contextmanager
def reading(path: Path, remedy: str = VERIFY_REMEDY) -> Iterator[None]:
    """Convert every error of a block that reads one file, and does nothing else.

    The libraries that parse files share no exception: on damaged input they raise `OSError`,
    `ValueError`, `KeyError`, `MemoryError`, `EOFError`, `BadZipFile` and plain `Exception`.

    Raises:
        DamagedFileError: The file is missing, is no regular file, or the block failed.
    """
    if reason := unreadable(path):
        raise DamagedFileError(path, reason, remedy)
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise DamagedFileError(path, first_line(error), remedy) from error


def read_table(path: Path, schema: pa.Schema, columns: Sequence[str] | None = None) -> pa.Table:
    """Read columns of a Parquet file with the types of `schema`.

    Args:
        columns: Names in `schema`. None means all.

    Raises:
        DamagedFileError: The file cannot be read, or lacks a column, or a value has another type.
    """
    wanted = pa.schema([schema.field(name) for name in columns or schema.names])
    with reading(path):
        table = pq.read_table(path, columns=wanted.names, partitioning=None)
        if missing := [name for name in wanted.names if name not in table.column_names]:
            raise ValueError(f"the column {missing[0]} is missing")
        return table.select(wanted.names).cast(wanted)


def require(path: Path, holds: bool, reason: str) -> None:
    """Check something about the content of a file that was read.

    Raises:
        DamagedFileError: `holds` is false. The message states `reason`.
    """
    if not holds:
        raise DamagedFileError(path, reason)
