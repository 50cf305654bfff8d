"""Work on every core: threads of our own, each with one thread of the libraries'.

The libraries' own threads wait for each other at every small product: on a busy machine a product of 0.3 ms takes 8 ms so.
Here a thread takes a large piece and keeps it. What a piece gives does not depend on how many threads there are, nor on which is free.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_threads(
    function: Callable[[Item], Result], items: Iterable[Item], workers: int
) -> list[Result]:
    """`function` of each item, in the items' order, by `workers` threads (0: one a core); the first error is raised."""
    items = list(items)
    workers = min(workers or cores(), len(items))
    with one_thread():
        if workers <= 1:
            return [function(item) for item in items]
        import torch  # noqa: PLC0415 - a second of import

        with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            return list(pool.map(function, items))


def pieces(rows: int, size: int) -> Iterator[slice]:
    """`rows` rows cut into slices of `size`, the last one shorter."""
    return (slice(first, min(first + size, rows)) for first in range(0, rows, size))


@contextmanager
def one_thread() -> Iterator[None]:
    """Inside it, or in a function it decorates, torch computes in the calling thread alone; where that is so already, nothing is done."""
    import torch  # noqa: PLC0415 - a second of import

    before = torch.get_num_threads()
    if before == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
