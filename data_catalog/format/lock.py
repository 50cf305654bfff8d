"""Exclusive use of a folder by one process."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from data_catalog.errors import UserError
from data_catalog.format.own_files import open_own_file, refuse_outside_links

LOCK = ".lock"


@contextmanager
def sole_holder(
    folder: Path, refusal: str = "", lock: str = LOCK, *, wait: bool = False
) -> Iterator[None]:
    """Lock `folder`, which is created if missing, with the file `lock` below it.

    The operating system releases the lock when the process ends. With `wait`, wait for another
    process that holds it.

    Raises:
        UserError: Another process holds the lock, the message being `refusal`. Or the file system
            has no locks, or a symbolic link in the folder leads outside it.
    """
    refuse_outside_links(folder)
    file = folder / lock
    file.parent.mkdir(parents=True, exist_ok=True)
    descriptor = open_own_file(file, os.O_RDWR)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError as error:
            raise UserError(refusal) from error
        except OSError as error:
            raise UserError(
                f"{file}: cannot be locked ({error.strerror}). Expected a file system with locks. "
                "Mount it with locks (Lustre: `-o flock`), or choose another folder."
            ) from error
        yield
    finally:
        os.close(descriptor)
