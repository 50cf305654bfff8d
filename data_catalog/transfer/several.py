"""Transfers of several files at the same time."""

from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor

_TRANSFERS = 16  # files that are copied at the same time


def for_each(action: Callable[[str], None], names: Collection[str]) -> None:
    """Call `action` for each name, several at the same time. After a failure no more are begun."""
    with ThreadPoolExecutor(_TRANSFERS) as pool:
        try:
            for done in [pool.submit(action, name) for name in sorted(names)]:
                done.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
