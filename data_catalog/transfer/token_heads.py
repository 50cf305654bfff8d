"""The beginnings of token files on a store, which say where their token ids are."""

import threading
from collections.abc import Iterable, Mapping, Sequence
from tempfile import NamedTemporaryFile

import numpy as np
from jaxtyping import Int

from data_catalog.errors import UserError, first_line
from data_catalog.format.tokens import HEAD_BYTES, TokensPlace, locate_tokens
from data_catalog.transfer.ranges import ByteRange, ObjectRanges


class TokenHeads:
    """The place of the token ids in each of several files. A file is asked once."""

    def __init__(
        self,
        objects: ObjectRanges,
        names: Sequence[str],
        ends: Int[np.ndarray, " files"],
        sizes: Mapping[str, int],
    ) -> None:
        """Prepare to read, without contacting the store.

        Args:
            objects: The store.
            names: Names of the files' objects.
            ends: Minimum number of token ids in each file.
            sizes: Size of each object, in bytes.
        """
        self._objects, self._names, self._ends, self._sizes = objects, names, ends, sizes
        self._places: dict[int, TokensPlace] = {}
        self._lock = threading.Lock()

    def open(self, files: Iterable[int]) -> None:
        """Read the heads of files that were not read before, at the same time.

        Raises:
            UserError: One cannot be read, or is no file of tokens.
        """
        with self._lock:
            new = sorted(set(files) - self._places.keys())
            heads = self._objects.read(
                [
                    ByteRange(self._names[file], 0, min(HEAD_BYTES, self._sizes[self._names[file]]))
                    for file in new
                ]
            )
            for file, head in zip(new, heads, strict=True):
                self._places[file] = self._parse(file, head)

    def __getitem__(self, file: int) -> TokensPlace:
        """Return the place of the token ids of a file that `open` was given."""
        return self._places[file]

    def _parse(self, file: int, head: bytes) -> TokensPlace:
        name = self._names[file]
        size = self._sizes[name]
        try:
            with NamedTemporaryFile(prefix="clustermix-") as sparse:
                sparse.write(head)
                sparse.truncate(size)
                sparse.flush()
                place = locate_tokens(sparse.name)
            if place.first_byte + place.tokens * place.dtype.itemsize > size:
                raise ValueError("the token ids end past the end of the file")
            if place.tokens < self._ends[file]:
                raise ValueError("an extent ends past the end of the token ids")
        except Exception as error:  # of Arrow, see `data_catalog.format.damage`
            raise UserError(
                f"{self._objects.url}/{name}: is no file of tokens of this catalog "
                f"({first_line(error)}). Export the catalog again."
            ) from error
        return place
