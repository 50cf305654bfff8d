"""Failures of disks and file systems: recognize them, add the path, and say what to do.

Libraries raise them in many ways: as an `OSError` without a path (Arrow, Python's own `write`), as
an exception of their own whose text has the words of the system (DuckDB, safetensors, tokenizers),
or as another exception that hides the `OSError` (`torch.save`).
"""

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from data_catalog.errors import AccountingError, UserError

_AGAIN = "then run the same command again"
_KEPT = f"{_AGAIN}. Finished work is kept"
# What was found and what to do, by errno. These are never bugs, wherever they occur.
_RESOURCES = {
    errno.ENOSPC: ("no space left on device", f"Free some space, {_KEPT}"),
    errno.EDQUOT: ("disk quota exceeded", f"Free some space or raise the quota, {_KEPT}"),
    errno.EFBIG: (
        "the file would exceed the limit of this process or of the file system",
        f"Raise the limit (`ulimit -f`) or choose another file system, {_KEPT}",
    ),
    errno.EROFS: (
        "read-only file system",
        f"Make it writable or choose another folder, {_AGAIN}",
    ),
    errno.EIO: ("input/output error", f"Check the disk and the system's log, {_AGAIN}"),
    # Before EMFILE, whose words it contains.
    errno.ENFILE: ("too many open files on this machine", f"Close some programs, {_AGAIN}"),
    errno.EMFILE: ("too many open files", f"Raise the limit of files (`ulimit -n`), {_AGAIN}"),
}
# The same, of a known path.
_PATHS = {
    errno.EACCES: ("permission denied", f"Change its permissions or choose another path, {_AGAIN}"),
    errno.EPERM: (
        "operation not permitted",
        f"Change its permissions or choose another path, {_AGAIN}",
    ),
    errno.ENAMETOOLONG: ("the name is too long", "Choose a shorter one"),
    errno.ENOTDIR: ("a file is where a folder is expected", "Choose another path"),
    errno.EISDIR: ("is a folder. Expected a file", "Choose another path"),
    errno.EEXIST: ("exists already, and is not a folder", "Remove it or choose another path"),
    errno.ELOOP: ("a symbolic link that is not followed", "Give the path that it leads to"),
}
# DuckDB's limit on temporary files is the free space.
_WORDS = {"max_temp_directory_size": errno.ENOSPC} | {
    os.strerror(number): number for number in (*_RESOURCES, *_PATHS)
}
# The target of a copy, else the first absolute path.
_QUOTED_PATHS = (re.compile(r"-> '([^'\n]+)'"), re.compile(r"""["'](/[^"'\n]+)["']"""))
# Temporary names of `data_catalog.temporary`. Earlier versions wrote neither host nor UUID.
TEMPORARY_NAME = re.compile(
    r"\.(?P<name>.+)\."
    r"(?:(?P<host>[A-Za-z0-9-]+)\.(?P<pid>[0-9]{1,10})\.[0-9a-f]{32}|[0-9]{1,10})\.tmp"
)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Raise a failure of the file system in this block as an `OSError` that names a path.

    The path is that of the failed file if the error names one, else `path`.

    Raises:
        OSError: A file cannot be written or read.
    """
    try:
        yield
    except (UserError, AccountingError):
        raise
    except Exception as error:
        found = disk_failure(error)
        if found is None or found.errno is None or (found is error and _failed_path(found)):
            raise
        place = _failed_path(found) or str(path)
        raise OSError(found.errno, os.strerror(found.errno), place) from error


def disk_failure(error: BaseException) -> OSError | None:
    """Return the failure of a file system that `error` is or was caused by, or None.

    Its `errno` is set. Its `filename` is None if the path is not known. A missing file is not such
    a failure.
    """
    if isinstance(error, OSError) and _failed_path(error):
        return error if error.errno not in (None, errno.ENOENT) else None
    for link, is_cause in _chain(error):
        if (found := _recognize(link)) is None:
            continue
        # An error in the handling of, for example, a refused permission may be a bug.
        if found.errno in _RESOURCES or is_cause:
            return found
    return None


def describe_disk_failure(error: BaseException) -> str | None:
    """Return a sentence on the failure of a file system behind `error`, or None if there is none.

    It names the path and says what to do.
    """
    found = disk_failure(error)
    if found is None or found.errno is None:
        return None
    what, advice = (_RESOURCES | _PATHS).get(
        found.errno,
        (os.strerror(found.errno).lower(), f"Check the path and its file system, {_AGAIN}"),
    )
    return f"{_final_path(_failed_path(found) or 'a file')}: {what}. {advice}."


def is_passing(error: BaseException) -> bool:
    """Return whether another attempt may help after `error`.

    It does not help an invalid request, and not with a full disk.
    """
    refused = isinstance(error, UserError | AccountingError)
    return not refused and describe_disk_failure(error) is None


def _chain(error: BaseException) -> Iterator[tuple[BaseException, bool]]:
    """Yield `error` and all that it was raised from, or while handling.

    The second value is False after a step that was not `raise ... from`.
    """
    waiting, seen = [(error, True)], set[int]()
    while waiting:
        link, is_cause = waiting.pop()
        if id(link) in seen or isinstance(link, UserError):
            continue
        seen.add(id(link))
        yield link, is_cause
        if link.__context__ is not None and not link.__suppress_context__:
            waiting.append((link.__context__, False))
        if link.__cause__ is not None:
            waiting.append((link.__cause__, is_cause))
        if isinstance(link, BaseExceptionGroup):
            waiting.extend((inner, is_cause) for inner in link.exceptions)


def _recognize(error: BaseException) -> OSError | None:
    """Return `error` as an `OSError` with an errno, or None if it is something else."""
    if isinstance(error, OSError) and _failed_path(error):
        return error if error.errno in (_RESOURCES | _PATHS) else None
    text = str(error)
    number = next((number for words, number in _WORDS.items() if words in text), None)
    if number is None:
        return None
    path = next((match[1] for form in _QUOTED_PATHS if (match := form.search(text))), None)
    if number not in _RESOURCES and path is None:
        return None
    return OSError(number, os.strerror(number), path)


def _failed_path(error: OSError) -> str | None:
    """Return the path of an error. Of a copy or a link, it is the target."""
    for name in (error.filename2, error.filename):
        if isinstance(name, str | bytes):
            return os.fsdecode(name)
    return None


def _final_path(path: str) -> str:
    """Return a path without the temporary names of `data_catalog.temporary`."""
    return "/".join(TEMPORARY_NAME.sub(r"\g<name>", name) for name in path.split("/"))
