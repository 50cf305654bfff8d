"""One process at a time in a folder."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from data_catalog.errors import UserError


@contextmanager
def sole_holder(folder: Path, refusal: str) -> Iterator[None]:
    """Hold `folder`, which is made if it is not there. The operating system lets go of it when the process ends, however it ends.

    Raises:
        UserError: another process holds it; `refusal` says so.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(refusal) from error
        yield
