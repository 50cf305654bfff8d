"""Rows of several short sequences, with little padding."""

from heapq import heapreplace

import numpy as np
from jaxtyping import Int


def packed_rows(sizes: Int[np.ndarray, " sequences"], width: int) -> list[list[int]]:
    """Return the sequences of each row, such that rows are almost equally long.

    The longest sequence that is left goes to the row with the most space. There are as few rows as
    this allows.

    Args:
        sizes: number of tokens of each sequence, at most `width`.
        width: maximum number of tokens per row.
    """
    longest_first = np.argsort(-sizes, kind="stable").tolist()
    count = -(-int(sizes.sum()) // width)
    while True:
        filled = [(0, row) for row in range(count)]  # a heap: the row with the most space is first
        rows: list[list[int]] = [[] for _ in range(count)]
        for sequence in longest_first:
            size, row = filled[0][0] + int(sizes[sequence]), filled[0][1]
            if size > width:
                break
            rows[row].append(sequence)
            heapreplace(filled, (size, row))
        else:
            return rows
        count += max(count // 16, 1)
