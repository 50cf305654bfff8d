"""Files and folders that appear only when they are complete.

They are made under a temporary name, `.NAME.HOST.PID.UUID.tmp`, and then renamed. The UUID makes
the name unique: two processes that make the same thing at the same time, even with the same process
id on two machines, never write to one temporary.

A process that is killed leaves its temporaries behind. `remove_unfinished` removes them by one
rule: a temporary is removed if its process has ended, and kept while the process may be alive.

* HOST names the machine and the process namespace (a container has one of its own). If it is that
  of this process, the process id says whether the maker is alive.
* Otherwise nobody here can know. Such a temporary is removed if nothing in it has changed for a
  day. The same holds for names without a host, which earlier versions wrote.

A temporary folder is renamed before it is removed. If its maker is alive after all, the maker
fails, but cannot publish a folder of which a part is gone.
"""

import errno
import os
import re
import shutil
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from uuid import uuid4

from data_catalog.disk import TEMPORARY_NAME, writing

MAXIMUM_AGE = 24 * 60 * 60  # seconds without a change after which a foreign temporary is removed
_MAXIMUM_NAME = 255  # bytes of a file name


@contextmanager
def replacing(path: Path, keep: Callable[[], bool] | None = None) -> Iterator[Path]:
    """Yield a temporary sibling of `path`, and rename it over `path` if the block succeeds.

    The block makes a file or a folder at the temporary path. If it fails, `path` is as it was and
    nothing is left at the temporary path.

    Args:
        path: The file or folder to make.
        keep: Called before a folder that has content is replaced. If true, it stays, and what the
            block made is removed.

    Raises:
        OSError: The disk is full or cannot be written. The error names a path, see
            `data_catalog.disk.writing`.
    """
    temporary = temporary_path(path)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            _publish(temporary, path, keep)
        except BaseException:
            with suppress(OSError):  # on a read-only file system. The first error says more.
                remove(temporary)
            raise


def temporary_path(path: Path) -> Path:
    """Return a new temporary name for `path`, in the same folder."""
    ending = f".{_host()}.{os.getpid()}.{uuid4().hex}.tmp"
    name = os.fsencode(path.name)
    if len(name) <= _MAXIMUM_NAME:  # a longer name is left for the file system to refuse
        name = name[: _MAXIMUM_NAME - 1 - len(ending)]
    return path.with_name(f".{os.fsdecode(name)}{ending}")


@contextmanager
def in_use(folder: Path) -> Iterator[None]:
    """Mark an existing folder as used by this process, for `is_used`."""
    mark = temporary_path(folder / "used")
    mark.touch()
    try:
        yield
    finally:
        mark.unlink(missing_ok=True)


def is_used(folder: Path) -> bool:
    """Return whether a process that may be alive has a folder `in_use`."""
    return any(map(_may_be_alive, folder.glob(".used.*.tmp")))


def oldest_use(folder: Path) -> float | None:
    """Return the time at which the oldest `in_use` of a folder began, or None if there is none.

    Uses by processes that have ended do not count.
    """
    times = []
    for mark in filter(_may_be_alive, folder.glob(".used.*.tmp")):
        with suppress(FileNotFoundError):  # that use has just ended
            times.append(mark.stat().st_mtime)
    return min(times, default=None)


def remove_unfinished(folders: Iterable[Path], name: str = "*") -> None:
    """Remove the temporary files and folders that killed processes have left.

    Those whose process may be alive are kept, see the module.

    Args:
        folders: Folders that hold them. Folders below these are not searched.
        name: Name of what they would have become. By default, those of all names are removed.
    """
    for folder in folders:
        for path in folder.glob(f".{name}.*.tmp"):
            if TEMPORARY_NAME.fullmatch(path.name) and not _may_be_alive(path):
                remove_at_once(path)


def remove_at_once(path: Path) -> None:
    """Remove a file or a folder, if it exists. It is renamed first, so it is never there in part.

    Links are not followed.
    """
    aside = temporary_path(path)
    with suppress(FileNotFoundError):
        path.rename(aside)
        remove(aside)


def remove(path: Path) -> None:
    """Remove a file or a folder with its content, if it exists. Links are not followed."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _publish(temporary: Path, path: Path, keep: Callable[[], bool] | None) -> None:
    """Rename the temporary over `path`.

    A folder cannot replace one that has content, or a file. These are renamed first.
    """
    while True:
        try:
            os.replace(temporary, path)
        except OSError as error:
            occupied = error.errno in {errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR}
            if not occupied or not temporary.is_dir():
                raise
        else:
            return
        if keep is not None and keep():
            remove(temporary)
            return
        remove_at_once(path)


@cache
def _host() -> str:
    """Return a name of this machine and this process namespace, without dots."""
    name = re.sub(r"[^A-Za-z0-9]", "-", socket.gethostname())[:32] or "host"
    try:
        return f"{name}-{os.stat('/proc/self/ns/pid').st_ino:x}"
    except OSError:  # a system without process namespaces
        return name


def _may_be_alive(path: Path) -> bool:
    """Return whether the process that made a temporary may still be writing it."""
    named = TEMPORARY_NAME.fullmatch(path.name)
    if named and named["host"] == _host():
        return _is_running(int(named["pid"]))
    return time.time() - _last_change(path) < MAXIMUM_AGE


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    try:
        state = Path(f"/proc/{process}/stat").read_bytes().rpartition(b") ")[2][:1]
    except OSError:
        return True
    return state not in {b"Z", b"X"}  # a zombie writes nothing


def _last_change(path: Path) -> float:
    """Return the time of the last change of a file, or of anything in a folder."""
    newest = 0.0
    for place in (path, *path.rglob("*")):
        with suppress(FileNotFoundError):  # removed by its owner meanwhile
            newest = max(newest, place.lstat().st_mtime)
    return newest
