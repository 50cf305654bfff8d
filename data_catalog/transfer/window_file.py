"""A bounded file of windows of token ids, each a record with a checksum.

A record that is not there, or that differs from its checksum, counts as missing. So the file may be
truncated, overwritten or shared by mistake, and a process or the machine may die at any time:
nothing but the bytes that were put is ever returned.
"""

import fcntl
import hashlib
import os
from collections.abc import Container
from contextlib import suppress
from itertools import count
from pathlib import Path

import numpy as np

_WAYS = 16  # places that a record can have; it is found by looking at all of them
_MULTIPLIER = 0x9E3779B97F4A7C15  # 2**64 / golden ratio, which spreads consecutive keys
_INDEX = np.dtype([("key", "<u8"), ("checksum", "<u8")])


class WindowFile:
    """Records of at most a given size, by a number. The least recently used ones are replaced.

    Only one thread at a time may use it.
    """

    def __init__(self, path: Path, record_bytes: int, maximum_bytes: int) -> None:
        """Open the file, with the records that an earlier process left in it.

        Args:
            path: The file. Another with the ending `.index` is beside it.
            record_bytes: Maximum size of a record.
            maximum_bytes: Maximum size of both files.

        Raises:
            BlockingIOError: Another process uses the file.
        """
        self._record_bytes = record_bytes
        self._sets = max(maximum_bytes // (record_bytes + _INDEX.itemsize) // _WAYS, 1)
        places = self._sets * _WAYS
        path.parent.mkdir(parents=True, exist_ok=True)
        index = path.with_name(f"{path.name}.index")
        self._content = _open(path)
        try:
            fcntl.flock(self._content, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._content)
            raise
        except OSError:  # A file system without locks. If others use the file, records are missing.
            pass
        self._index = _open(index)
        # The place of a record depends on the number of places.
        if os.fstat(self._index).st_size != places * _INDEX.itemsize:
            os.ftruncate(self._content, 0)
            os.ftruncate(self._index, 0)
            os.ftruncate(self._index, places * _INDEX.itemsize)
        entries = np.fromfile(index, _INDEX)
        self._keys, self._checksums = entries["key"].copy(), entries["checksum"].copy()
        self._used = np.zeros(places, np.uint64)  # clock of the last use
        self._clock = 0

    @classmethod
    def open_unused(
        cls, folder: Path, name: str, record_bytes: int, maximum_bytes: int
    ) -> "WindowFile":
        """Open the first file of this name in `folder` that no other process uses.

        See `__init__` for the other arguments.
        """
        for number in count():
            with suppress(BlockingIOError):
                return cls(folder / f"{name}-{number}", record_bytes, maximum_bytes)
        raise AssertionError("there are infinitely many numbers")

    @property
    def places(self) -> int:
        """Maximum number of records."""
        return self._sets * _WAYS

    def __contains__(self, key: int) -> bool:
        """Return whether a record is there, without reading it."""
        return self._place(key) is not None

    def get(self, key: int, size: int, origin: str) -> bytes | None:
        """Return a record, or None if it is not there.

        Args:
            key: Number of the record, from 0 to 2**63.
            size: Its size in bytes.
            origin: What `put` got.
        """
        place = self._place(key)
        if place is None:
            return None
        content = os.pread(self._content, size, place * self._record_bytes)
        if len(content) != size or _checksum(key, content, origin) != self._checksums[place]:
            self._keys[place] = 0
            return None
        self._touch(place)
        return content

    def put(self, key: int, content: bytes, origin: str, kept: Container[int] = ()) -> bool:
        """Add a record, or replace the one of this key. Return False if there is no place for it.

        Args:
            key: Number of the record, from 0 to 2**63.
            content: The record.
            origin: Identity of what it was read from, which its checksum includes.
            kept: Keys that are not replaced.
        """
        place = self._place(key)
        if place is None and (place := self._free_place(key, kept)) is None:
            return False
        checksum = _checksum(key, content, origin)
        os.pwrite(self._content, content, place * self._record_bytes)
        entry = np.array([(key + 1, checksum)], _INDEX)
        os.pwrite(self._index, entry.tobytes(), place * _INDEX.itemsize)
        self._keys[place], self._checksums[place] = key + 1, checksum
        self._touch(place)
        return True

    def touch(self, key: int) -> None:
        """Count a record that is there as used now."""
        if (place := self._place(key)) is not None:
            self._touch(place)

    def close(self) -> None:
        os.close(self._content)
        os.close(self._index)

    def _touch(self, place: int) -> None:
        self._clock += 1
        self._used[place] = self._clock

    def _first(self, key: int) -> int:
        return ((key + 1) * _MULTIPLIER % 2**64 >> 32) % self._sets * _WAYS

    def _place(self, key: int) -> int | None:
        first = self._first(key)
        found = np.flatnonzero(self._keys[first : first + _WAYS] == np.uint64(key + 1))
        return first + int(found[0]) if len(found) else None

    def _free_place(self, key: int, kept: Container[int]) -> int | None:
        """Return an empty place for a record, or that of the least recently used one."""
        first = self._first(key)
        keys, used = (column[first : first + _WAYS] for column in (self._keys, self._used))
        for way in np.lexsort((used, keys > 0)).tolist():  # empty places first
            if not keys[way] or int(keys[way]) - 1 not in kept:
                return first + way
        return None


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


def _checksum(key: int, content: bytes, origin: str) -> np.uint64:
    digest = hashlib.blake2b(content, digest_size=8)
    digest.update(key.to_bytes(8, "little") + origin.encode())
    return np.uint64(int.from_bytes(digest.digest(), "little"))
