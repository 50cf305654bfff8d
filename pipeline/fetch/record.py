"""The outcome of each requested file, appended to `fetch.jsonl` as one line of JSON."""

import fcntl
import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from data_catalog.disk import writing
from data_catalog.errors import UserError
from data_catalog.format.own_files import open_own_file, refuse_outside_links
from data_catalog.settings import Settings

RECORD_FILE = "fetch.jsonl"


class FetchEntry(Settings):
    """The state of one file. The last line about a path counts."""

    path: str
    """Path below the root. For a refused line of a listing: the listing and the line number."""
    state: Literal["fetched", "absent", "failed", "refused"]
    """State of the file. `absent`: the server does not have it. `refused`: it was never
    requested."""
    url: str | None = None
    """URL of the file."""
    bytes: int = 0
    """Size of the file."""
    sha256: str | None = None
    """SHA-256 of the file."""
    attempts: int = 0
    """Number of requests."""
    etag: str | None = None
    """ETag reported by the server."""
    detail: str | None = None
    """Explanation of the state."""
    at: str = Field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    """Time of the entry, UTC."""


class FetchRecord:
    """The entries of a root by path, and the file that they are appended to. Thread-safe."""

    def __init__(self, path: Path, file: int, entries: dict[str, FetchEntry]) -> None:
        self._path, self._file, self._lock = path, file, threading.Lock()
        self.entries = entries

    def add(self, entry: FetchEntry) -> None:
        """Append an entry to the file."""
        line = entry.model_dump_json(exclude_none=True).encode() + b"\n"
        with self._lock, writing(self._path):
            while line:  # the system writes a part of a line if no more fits on the disk
                line = line[os.write(self._file, line) :]
            self.entries[entry.path] = entry


@contextmanager
def open_record(root: Path, name: str = RECORD_FILE) -> Iterator[FetchRecord]:
    """Open the record of `root`, locked for this process until the block ends.

    Raises:
        UserError: Another process is fetching into `root`, or a symbolic link in it leads outside.
    """
    refuse_outside_links(root)
    root.mkdir(parents=True, exist_ok=True)
    file = open_own_file(root / name, os.O_RDWR | os.O_APPEND)
    try:
        try:
            # The system releases the lock if this process is killed.
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(
                f"{root}: another process is fetching into this folder. "
                "Wait for it, or choose another folder."
            ) from error
        yield FetchRecord(root / name, file, _read(file))
    finally:
        os.close(file)


def _read(file: int) -> dict[str, FetchEntry]:
    with os.fdopen(os.dup(file), "rb") as opened:
        data = opened.read()
    if data and not data.endswith(b"\n"):
        # A process was killed while it wrote a line. That line is ignored, and the next one must
        # not continue it.
        os.write(file, b"\n")
    entries = {}
    for line in data.splitlines():
        try:
            entry = FetchEntry.model_validate(json.loads(line))
        except (ValueError, ValidationError):
            continue
        entries[entry.path] = entry
    return entries
