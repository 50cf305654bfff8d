"""Token ids of a catalog on a store, fetched by windows into a bounded file on this machine.

A window is a training sequence. The trainer says which ones it will read next, and a thread fetches
exactly these in advance. A window that is read before it is there is fetched at once.
"""

import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future
from typing import NamedTuple

import numpy as np
from jaxtyping import Int, UInt

from data_catalog.transfer.ranges import ByteRange, ObjectRanges
from data_catalog.transfer.token_heads import TokenHeads
from data_catalog.transfer.window_file import WindowFile

_FIRST_CHUNK, _LARGEST_CHUNK = 32, 512  # windows that are fetched together
# Bytes between windows of a request that nobody needs, as a share of those that are needed.
_WASTE = 1 / 8
_LARGEST_REQUEST = 8 * 2**20  # bytes
_AHEAD = 1 / 4  # share of the records that may be windows which are not read yet
_TOKEN_BITS = 40  # of a window's key, for its first token. Those above are the file's number.


class _Window(NamedTuple):
    """The token ids `first <= place < last` of a file."""

    file: int
    first: int
    last: int

    @property
    def key(self) -> int:
        return self.file << _TOKEN_BITS | self.first


_Fetch = Future[dict[int, bytes]]  # contents of windows, by key


class FetchedTokens:
    """The windows of several token files on a store. Implements `TokenWindows`."""

    def __init__(
        self, objects: ObjectRanges, names: Sequence[str], heads: TokenHeads, records: WindowFile
    ) -> None:
        """Prepare to read, without contacting the store.

        Args:
            objects: The store.
            names: Names of the files' objects. Windows number them from 0.
            heads: Places of the token ids in these files.
            records: Holds the windows. Nothing else uses it.
        """
        self._objects, self._names, self._heads, self._records = objects, names, heads, records
        # The lock of everything below, and of `records`.
        self._changed = threading.Condition()
        self._expected: OrderedDict[int, _Window] = OrderedDict()  # that no thread has asked for
        self._ahead: set[int] = set()  # keys of windows that are there, expected and not read
        self._fetches: dict[int, _Fetch] = {}  # by the key of each of their windows
        self._chunk = _FIRST_CHUNK
        self._thread: threading.Thread | None = None

    def read(
        self,
        file: Int[np.ndarray, " n"],
        first: Int[np.ndarray, " n"],
        last: Int[np.ndarray, " n"],
    ) -> list[UInt[np.ndarray, " _tokens"]]:
        """Return windows, which are fetched if they are not here. See `TokenWindows.read`.

        Raises:
            UserError: The store cannot be reached, or an object is not that of the catalog.
        """
        windows = _windows(file, first, last)
        self._heads.open({window.file for window in windows})
        contents: dict[int, bytes] = {}
        with self._changed:
            for window in windows:
                self._expected.pop(window.key, None)
                if (content := self._get(window)) is not None:
                    contents[window.key] = content
            missing = {w.key: w for w in windows if w.key not in contents}
            fetched_by_others = {key: self._fetches[key] for key in missing if key in self._fetches}
            own = [w for key, w in missing.items() if key not in fetched_by_others]
            fetch = self._begin(own)
        if own:
            self._finish(own, fetch)
            contents |= fetch.result()
        for key, other in fetched_by_others.items():
            contents[key] = other.result()[key]
        with self._changed:
            self._ahead -= {window.key for window in windows}
            self._changed.notify_all()
        return [
            np.frombuffer(contents[window.key], self._heads[window.file].dtype)
            for window in windows
        ]

    def expect(
        self,
        file: Int[np.ndarray, " n"],
        first: Int[np.ndarray, " n"],
        last: Int[np.ndarray, " n"],
    ) -> None:
        """Begin to fetch windows in the background. See `TokenWindows.expect`."""
        with self._changed:
            self._expected = OrderedDict((w.key, w) for w in _windows(file, first, last))
            self._ahead, self._chunk = set(), _FIRST_CHUNK
            self._changed.notify_all()
            if self._thread is None and self._expected:
                # It must not keep the process from ending.
                self._thread = threading.Thread(target=self._fetch_ahead, daemon=True)
                self._thread.start()

    def _fetch_ahead(self) -> None:
        """Fetch what is expected, in its order, until nothing is expected."""
        most = max(int(_AHEAD * self._records.places), 1)
        while True:
            with self._changed:
                self._changed.wait_for(lambda: not self._expected or len(self._ahead) < most)
                if not self._expected:
                    self._thread = None
                    return
                count = min(self._chunk, most - len(self._ahead), len(self._expected))
                self._chunk = min(2 * self._chunk, _LARGEST_CHUNK)
                chunk = [self._expected.popitem(last=False)[1] for _ in range(count)]
                self._ahead.update(window.key for window in chunk)
            try:
                self._heads.open({window.file for window in chunk})
            except Exception:  # noqa: S112 (whoever reads these windows tries again, and fails)
                continue
            with self._changed:
                wanted = [w for w in chunk if w.key not in self._fetches and not self._has(w)]
                fetch = self._begin(wanted)
            self._finish(wanted, fetch)

    def _begin(self, windows: Sequence[_Window]) -> _Fetch:
        fetch: _Fetch = Future()
        self._fetches.update((window.key, fetch) for window in windows)
        return fetch

    def _finish(self, windows: Sequence[_Window], fetch: _Fetch) -> None:
        """Set the result of a fetch: the contents of windows, or an error."""
        try:
            contents = self._fetch(windows)
            self._keep(contents, windows)
        except BaseException as error:
            fetch.set_exception(error)
        else:
            fetch.set_result(contents)
        finally:
            with self._changed:
                for window in windows:
                    del self._fetches[window.key]

    def _keep(self, contents: Mapping[int, bytes], windows: Sequence[_Window]) -> None:
        with self._changed:
            for window in windows:
                origin = self._objects.pin(self._names[window.file])
                self._records.put(window.key, contents[window.key], origin, self._ahead)

    def _fetch(self, windows: Sequence[_Window]) -> dict[int, bytes]:
        """Return the content of each window by its key, with few requests."""
        requests = list(self._requests(windows))
        found = self._objects.read([wanted for wanted, _ in requests])
        contents = {}
        for (wanted, members), content in zip(requests, found, strict=True):
            for window in members:
                start, end = self._bytes(window)
                contents[window.key] = content[start - wanted.start : end - wanted.start]
        return contents

    def _requests(self, windows: Sequence[_Window]) -> Iterable[tuple[ByteRange, list[_Window]]]:
        """Yield ranges that cover the windows, each with its windows."""
        members: list[_Window] = []
        file, start, end, waste = -1, 0, 0, 0
        for window in sorted(windows):
            first, last = self._bytes(window)
            gap = max(first - end, 0)
            useful = last - start - waste - gap
            if (
                window.file == file
                and waste + gap <= _WASTE * useful
                and last - start <= _LARGEST_REQUEST
            ):
                members.append(window)
                end, waste = last, waste + gap
                continue
            if members:
                yield ByteRange(self._names[file], start, end), members
            members, file, start, end, waste = [window], window.file, first, last, 0
        if members:
            yield ByteRange(self._names[file], start, end), members

    def _bytes(self, window: _Window) -> tuple[int, int]:
        """Return the place of a window in its object."""
        place = self._heads[window.file]
        size = place.dtype.itemsize
        return place.first_byte + window.first * size, place.first_byte + window.last * size

    def _get(self, window: _Window) -> bytes | None:
        start, end = self._bytes(window)
        origin = self._objects.pin(self._names[window.file])
        return self._records.get(window.key, end - start, origin)

    def _has(self, window: _Window) -> bool:
        """Return whether a window is probably here, and count it as used now."""
        self._records.touch(window.key)
        return window.key in self._records


def _windows(
    file: Int[np.ndarray, " n"], first: Int[np.ndarray, " n"], last: Int[np.ndarray, " n"]
) -> list[_Window]:
    return [
        _Window(*each) for each in zip(file.tolist(), first.tolist(), last.tolist(), strict=True)
    ]
