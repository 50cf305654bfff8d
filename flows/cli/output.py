"""Output of a command: sentences and tables for a person, or one JSON value for a script."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any


@contextmanager
def stdout_for_json(as_json: bool) -> Iterator[None]:
    """Redirect prints of the block to standard error if standard output is reserved for JSON."""
    if not as_json:
        yield
        return
    with redirect_stdout(sys.stderr):
        yield


def print_json(value: Any) -> None:
    """Print `value` as indented JSON.

    Paths and dates become text. NaN and infinity, which JSON lacks, become null.
    """
    print(json.dumps(_finite(value), indent=2, default=str, ensure_ascii=False))


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if value - value == 0 else None
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
