"""Token ids of a catalog whose token files are not on this machine.

`data_catalog.transfer` implements these protocols. `TokenStore` reads through them.
"""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int, UInt


@runtime_checkable
class TokenWindows(Protocol):
    """The token ids of several files, read by windows. Any thread may read them."""

    def read(
        self,
        file: Int[np.ndarray, " n"],
        first: Int[np.ndarray, " n"],
        last: Int[np.ndarray, " n"],
    ) -> list[UInt[np.ndarray, " _tokens"]]:
        """Return the token ids `first[i] <= place < last[i]` of file `file[i]`.

        Raises:
            UserError: They cannot be read.
        """
        ...

    def expect(
        self,
        file: Int[np.ndarray, " n"],
        first: Int[np.ndarray, " n"],
        last: Int[np.ndarray, " n"],
    ) -> None:
        """Begin to fetch windows that will be read next, in this order.

        Windows that were expected before and were not read yet are no longer expected.
        """
        ...


@runtime_checkable
class RemoteTokens(Protocol):
    """The token files of a catalog that are not on this machine."""

    def open(
        self, split: str, names: Sequence[str], ends: Int[np.ndarray, " files"]
    ) -> TokenWindows:
        """Return the windows of several token files.

        Args:
            split: Split of the corpus that is read from them.
            names: Paths of the files below the catalog. Windows number them from 0.
            ends: Minimum number of token ids in each file.
        """
        ...
