"""Exclusive use of a folder in an object store: what a lock is on a disk.

The lease is an object that names its holder and the time at which it ends. The holder prolongs it
from a thread. After the holder was killed nobody does, and the next one takes the folder.

Leases are numbered. Whoever takes the folder creates the object with the next number, which only
one process can, see `Place.create`. A holder that was asleep for longer than its lease finds a
higher number and has lost the folder. The times of two machines are compared, so their clocks must
agree within seconds.
"""

import json
import logging
import os
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Annotated
from uuid import uuid4

from pydantic import Field

from data_catalog.errors import UserError
from data_catalog.format.records import Record, parse_record
from data_catalog.place import Place

LEASE_SECONDS = 60.0
_NAME = re.compile(r"lease-(\d{8})\.json")

logger = logging.getLogger(__name__)


class LeaseRecord(Record):
    """The contents of a lease."""

    host: str
    pid: int
    holder: str
    """Unique identifier of the process that holds the folder."""
    since: Annotated[float, Field(ge=0)]
    """Time at which it took the folder, in seconds since 1970."""
    until: Annotated[float, Field(ge=0)]
    """Time at which the lease ends unless it is prolonged."""


class Lease:
    """A lease that this process holds."""

    def __init__(self, folder: Place, number: int, record: LeaseRecord) -> None:
        self._folder, self._number, self._record = folder, number, record
        self._lost = ""

    def check(self) -> None:
        """Check that the folder is still held.

        Raises:
            UserError: It is not: this process or the store stood still for longer than the lease.
        """
        if not self._lost and time.time() > self._record.until:
            self._lost = "the lease could not be prolonged in time"
        if self._lost:
            raise UserError(
                f"{self._folder}: this process no longer holds the folder ({self._lost}). Nothing "
                "was published. Run the command again: finished work is kept."
            )

    def confirm(self) -> None:
        """Prolong the lease and check that the folder is held.

        A lease that ended while the store could not be reached is valid again if nobody took it.

        Raises:
            UserError: Another process has taken it, or the store cannot be reached.
        """
        self.prolong()
        self.check()

    def prolong(self) -> None:
        """Let the lease end later, unless another process has taken the folder."""
        if max(_numbers(self._folder), default=0) != self._number:
            self._lost = "another process has taken it"
            return
        record = self._record.model_copy(update={"until": time.time() + LEASE_SECONDS})
        _object(self._folder, self._number).write(_text(record))
        self._record = record

    def release(self) -> None:
        """Let others take the folder."""
        if not self._lost:
            _object(self._folder, self._number).remove()

    def prolong_until(self, ended: threading.Event) -> None:
        """Prolong the lease at intervals until an event is set or the lease is lost."""
        while not self._lost and not ended.wait(LEASE_SECONDS / 4):
            with suppress(UserError):  # the store may answer again before the lease ends
                self.prolong()


@contextmanager
def sole_lease(folder: Place, what: str, remedy: str, *, wait: bool = False) -> Iterator[Lease]:
    """Hold a folder of a store for this process.

    Args:
        folder: The folder that holds the lease, for the errors.
        what: What the holder does, such as "another build".
        remedy: What to do instead of waiting.
        wait: Wait for the end of a lease that nobody prolongs, because its holder was killed. A
            holder that is alive prolongs it within a quarter of `LEASE_SECONDS`.

    Raises:
        UserError: Another process holds the folder.
    """
    lease = _take(folder, what, remedy, wait)
    ended = threading.Event()
    thread = threading.Thread(target=lease.prolong_until, args=(ended,), daemon=True)
    thread.start()
    try:
        yield lease
    finally:
        ended.set()
        thread.join()
        with suppress(UserError):  # it ends anyway
            lease.release()


def _take(folder: Place, what: str, remedy: str, wait: bool) -> Lease:
    awaited: LeaseRecord | None = None
    while True:
        numbers = _numbers(folder)
        newest = max(numbers, default=0)
        if newest and (held := _read(folder, newest)) and held.until > time.time():
            if wait and (awaited is None or held.until == awaited.until):
                if awaited is None:
                    logger.warning(
                        "%s: held by process %d on %s. If that was killed, this one continues "
                        "after %s.",
                        folder,
                        held.pid,
                        held.host,
                        _clock(held.until),
                    )
                awaited = held
                time.sleep(LEASE_SECONDS / 60)
                continue
            raise UserError(
                f"{folder}: {what} is running here, process {held.pid} on {held.host} since "
                f"{_clock(held.since)}. {remedy} If that process was killed, the folder is free "
                f"after {_clock(held.until)}."
            )
        now = time.time()
        record = LeaseRecord(
            host=socket.gethostname(),
            pid=os.getpid(),
            holder=uuid4().hex,
            since=now,
            until=now + LEASE_SECONDS,
        )
        if _object(folder, newest + 1).create(_text(record)):
            for number in numbers:  # leases that have ended
                _object(folder, number).remove()
            return Lease(folder, newest + 1, record)


def is_lease(name: str) -> bool:
    """Return whether a file of this name is a lease."""
    return _NAME.fullmatch(name) is not None


def _numbers(folder: Place) -> list[int]:
    return [int(match[1]) for name in folder.names() if (match := _NAME.fullmatch(name))]


def _read(folder: Place, number: int) -> LeaseRecord | None:
    place = _object(folder, number)
    text = place.read()
    return None if text is None else parse_record(LeaseRecord, text, str(place), "Remove it.")


def _object(folder: Place, number: int) -> Place:
    return folder / f"lease-{number:08d}.json"


def _text(record: LeaseRecord) -> bytes:
    return json.dumps(record.model_dump(mode="json"), indent=2, sort_keys=True).encode()


def _clock(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
