"""Comparison of files with a catalog's checksums, once per machine and state of a file.

A file that was found right is recorded in the user's cache with its size, its times of change and
its inode. It is read again only after one of these has changed.
"""

import hashlib
import json
import logging
import os
import platform
import threading
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from data_catalog.folders import cache_folder
from data_catalog.format.damage import DamagedFileError
from data_catalog.format.file_cache import cached_file
from data_catalog.format.manifest import (
    FileIdentity,
    damaged_files,
    refuse_damaged,
    write_json,
)
from data_catalog.place import Place

SMALL_BYTES = 64 * 2**20  # a file up to this size takes milliseconds to compare
_SMALL_DOWNLOAD = 8 * 2**20  # bytes of a file of a store that is downloaded, not read by ranges
_DOWNLOADS = 8  # files that are downloaded at the same time
_MESSAGE_BYTES = 10**9  # a comparison of fewer bytes takes seconds, and is not announced

logger = logging.getLogger(__name__)


class VerifiedFiles:
    """The files of one version of a catalog, compared with the manifest when they are needed.

    What was found right is recorded when this object is no longer used.
    """

    def __init__(
        self, root: Path, expected: Mapping[str, FileIdentity], store: Place | None = None
    ) -> None:
        """Read the record of this machine.

        Args:
            root: Folder of the catalog.
            expected: Files of the manifest, keyed by their path below `root`.
            store: The catalog, if it is in a store and `root` is its folder in the cache.
        """
        self._root, self._expected, self._store = root, expected, store
        self._record = _record(root)
        self._known = _read(self._record)
        self._new: dict[str, list[str | int]] = {}
        self._lock = threading.Lock()
        weakref.finalize(self, _add_to_record, self._record, self._new)

    def compare(self, names: Iterable[str]) -> None:
        """Compare the files `names` with the manifest, except those that are known to be right.

        Files of a store are downloaded.

        Args:
            names: Paths below the catalog. Names that are not in the manifest are ignored.

        Raises:
            DamagedFileError: A file is missing or differs. The message names the first such file.
        """
        if self._store is not None:
            self._download([name for name in names if name in self._expected], self._store)
            return
        wanted, states = {}, {}
        for name in names:
            if name in self._expected:
                states[name] = self._state(name)
                if states[name] is None or self._known.get(name) != states[name]:
                    wanted[name] = self._expected[name]
        if (size := sum(file.bytes for file in wanted.values())) > _MESSAGE_BYTES:
            logger.warning(
                "%s: comparing the checksums of %.1f GB, once on this machine.",
                self._root,
                size / 1e9,
            )
        faults = damaged_files(self._root, wanted) if wanted else {}
        with self._lock:
            # A file that changes while it is read gets another state, and is compared again.
            right = {name: states[name] for name in wanted.keys() - faults.keys()}
            found = {name: state for name, state in right.items() if state is not None}
            self._known.update(found)
            self._new.update(found)
        refuse_damaged(self._root, faults)

    def stored_faults(
        self, on_progress: Callable[[int, int], None] | None = None
    ) -> dict[str, str]:
        """Download every file of a catalog in a store, and return the faults by name.

        What is in the cache is not believed.

        Args:
            on_progress: Called after each file with the bytes checked and the bytes of all files.

        Raises:
            UserError: The store cannot be read.
        """
        faults, checked, total = {}, 0, sum(file.bytes for file in self._expected.values())
        for name, file in self._expected.items():
            (self._root / name).unlink(missing_ok=True)
            try:
                self.compare([name])
            except DamagedFileError as error:
                faults[name] = error.reason
            checked += file.bytes
            if on_progress:
                on_progress(checked, total)
        return faults

    def compare_small(self, name: str) -> None:
        """Compare a file before it is shown, unless it is large.

        Raises:
            DamagedFileError: The file is missing or differs.
        """
        most = SMALL_BYTES if self._store is None else _SMALL_DOWNLOAD
        if name in self._expected and self._expected[name].bytes <= most:
            self.compare([name])

    def _download(self, names: Sequence[str], store: Place) -> None:
        with ThreadPoolExecutor(_DOWNLOADS) as pool:
            for downloaded in [
                pool.submit(cached_file, self._root / name, store / name, self._expected[name])
                for name in names
            ]:
                downloaded.result()

    def _state(self, name: str) -> list[str | int] | None:
        try:
            status = os.stat(self._root / name)
        except (OSError, ValueError):
            return None
        checksum = self._expected[name].sha256
        times = (status.st_mtime_ns, status.st_ctime_ns)
        return [checksum, status.st_size, *times, status.st_ino, status.st_dev]


def _record(root: Path) -> Path:
    """Return the record of a catalog, one for each machine that shares the cache."""
    place = f"{platform.node()}\0{os.path.realpath(root)}"
    name = hashlib.sha256(place.encode(errors="surrogateescape")).hexdigest()
    return cache_folder() / "verified" / f"{name[:32]}.json"


def _add_to_record(path: Path, new: Mapping[str, list[str | int]]) -> None:
    """Record what was found right. Without a cache that can be written, nothing is kept."""
    if new:
        with suppress(OSError):
            write_json(path, {**_read(path), **new})


def _read(path: Path) -> dict[str, list[str | int]]:
    """Return the states of the files that were found right. A damaged record has none."""
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    states = content.items() if isinstance(content, dict) else ()
    return {name: state for name, state in states if isinstance(state, list)}
