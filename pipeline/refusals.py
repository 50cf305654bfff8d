"""Texts that a library refuses: one of them must not end the work on the others."""

from collections.abc import Callable, Sequence
from typing import TypeVar

Result = TypeVar("Result")


def or_none(
    function: Callable[[list[str]], list[Result]], texts: Sequence[str]
) -> list[Result | None]:
    """Return the result of `function` for each text, None for a text for which it raises.

    `function` takes a list of texts and returns one result per text. If it raises, it is called
    again on either half. Errors of a library in Rust include panics, which are no `Exception`.

    Raises:
        MemoryError: `function` ran out of memory, which is no fault of a text.
    """
    whole = list(texts)
    try:
        return list(function(whole))
    except MemoryError:
        raise
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise  # an interrupt
    if len(whole) == 1:
        return [None]
    half = len(whole) // 2
    return [*or_none(function, whole[:half]), *or_none(function, whole[half:])]
