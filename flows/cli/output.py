"""What a command says at its end: sentences and tables for a person, or one JSON value for a script."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any


@contextmanager
def stdout_for_json(as_json: bool) -> Iterator[None]:
    """While a command works, what it prints goes to standard error, if standard output is for one JSON value."""
    if not as_json:
        yield
        return
    with redirect_stdout(sys.stderr):
        yield


def print_json(value: Any) -> None:
    """`value` alone on standard output; paths and dates as text, and no number that JSON does not have."""
    print(json.dumps(_finite(value), indent=2, default=str, ensure_ascii=False))


def _finite(value: Any) -> Any:
    """Not a number and infinity, which are not JSON, become null."""
    if isinstance(value, float):
        return value if value - value == 0 else None
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
