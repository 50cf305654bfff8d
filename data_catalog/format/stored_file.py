"""Read a file of a store by ranges, without downloading it."""

import os
import threading
from collections import OrderedDict

from data_catalog.place import Place

_BLOCK_BYTES = 2**18
_BLOCKS = 64  # that an open file remembers


class StoredFile:
    """An open file of a store, with a position of its own for each thread.

    Short reads are served from blocks, because readers of Parquet files ask for a few bytes many
    times. Each block is one request, as is each longer read.
    """

    def __init__(self, place: Place, size: int) -> None:
        """Prepare to read. Nothing is requested.

        Args:
            place: The file.
            size: Its size in bytes.
        """
        self._place, self._size = place, size
        self._positions = threading.local()
        self._blocks: OrderedDict[int, bytes] = OrderedDict()
        self._lock = threading.Lock()
        self.closed = False

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move this thread's position and return it."""
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self.tell(), os.SEEK_END: self._size}[whence]
        self._positions.at = start + offset
        return self.tell()

    def tell(self) -> int:
        """Return this thread's position in bytes."""
        return int(getattr(self._positions, "at", 0))

    def read(self, size: int = -1) -> bytes:
        """Return up to `size` bytes from this thread's position, or all that follow.

        Raises:
            UserError: The store cannot be read, or the file has another size.
        """
        start = self.tell()
        rest = max(self._size - start, 0)
        length = rest if size < 0 else min(size, rest)
        if length >= _BLOCK_BYTES:
            content = self._place.read_range(start, length)
        else:
            content = self._from_blocks(start, start + length)
        self._positions.at = start + length
        return content

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def writable(self) -> bool:
        return False

    def flush(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Forget the blocks. Closing it again has no effect."""
        self.closed = True
        with self._lock:
            self._blocks.clear()

    def _from_blocks(self, start: int, end: int) -> bytes:
        pieces = []
        while start < end:
            number, inside = divmod(start, _BLOCK_BYTES)
            pieces.append(self._block(number)[inside : inside + end - start])
            start += len(pieces[-1])
        return b"".join(pieces)

    def _block(self, number: int) -> bytes:
        with self._lock:
            if number in self._blocks:
                self._blocks.move_to_end(number)
                return self._blocks[number]
        first = number * _BLOCK_BYTES
        block = self._place.read_range(first, min(_BLOCK_BYTES, self._size - first))
        with self._lock:
            self._blocks[number] = block
            if len(self._blocks) > _BLOCKS:
                self._blocks.popitem(last=False)
        return block
