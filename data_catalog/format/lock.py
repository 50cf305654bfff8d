"""Exclusive use of a folder by one process."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from data_catalog.errors import UserError


@contextmanager
def sole_holder(folder: Path, refusal: str) -> Iterator[None]:
    """Lock `folder`, which is created if missing.

    The operating system releases the lock when the process ends.

    Raises:
        UserError: Another process holds the lock. The message is `refusal`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(refusal) from error
        yield
