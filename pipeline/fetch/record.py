"""What became of each file that was asked for: one line of JSON each time something is known, appended to `fetch.jsonl`."""

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

from data_catalog.errors import UserError
from data_catalog.settings import Settings

NAME = "fetch.jsonl"


class Entry(Settings):
    """The state of one file; the last line about a path is the one that counts."""

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


class Record:
    """The entries of a root by path, and the file they are appended to. Safe to use from several threads."""

    def __init__(self, file: int, entries: dict[str, Entry]) -> None:
        self._file, self._lock = file, threading.Lock()
        self.entries = entries

    def add(self, entry: Entry) -> None:
        line = entry.model_dump_json(exclude_none=True).encode() + b"\n"
        with self._lock:
            os.write(self._file, line)
            self.entries[entry.path] = entry


@contextmanager
def open_record(root: Path, name: str = NAME) -> Iterator[Record]:
    """The record of `root`, held by this process alone until the block ends, however it ends.

    Raises:
        UserError: another process is fetching into `root`.
    """
    root.mkdir(parents=True, exist_ok=True)
    file = os.open(root / name, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        try:
            fcntl.flock(
                file, fcntl.LOCK_EX | fcntl.LOCK_NB
            )  # given up by the system if this process is killed
        except BlockingIOError as error:
            raise UserError(
                f"{root}: another process is fetching into this folder; wait for it or choose another"
            ) from error
        yield Record(file, _read(root / name, file))
    finally:
        os.close(file)


def _read(path: Path, file: int) -> dict[str, Entry]:
    data = path.read_bytes()
    if data and not data.endswith(b"\n"):
        os.write(
            file, b"\n"
        )  # killed while writing a line: it counts for nothing, the next must not be glued to it
    entries = {}
    for line in data.splitlines():
        try:
            entry = Entry.model_validate(json.loads(line))
        except (ValueError, ValidationError):
            continue
        entries[entry.path] = entry
    return entries
