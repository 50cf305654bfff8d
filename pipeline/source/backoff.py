"""Retries after network errors: exponential back-off with jitter."""

from collections.abc import Iterator
from dataclasses import dataclass

from pipeline.source.documents import unit_hash

_NETWORK_PACKAGES = {
    "aiohttp",
    "httpcore",
    "httpcore2",
    "httpx",
    "httpx2",
    "huggingface_hub",
    "requests",
    "urllib3",
}


@dataclass(frozen=True)
class RetryPolicy:
    """Number of retries after network errors, and the time between them."""

    attempts: int = 6
    """Maximum number of failures in a row without progress."""
    first_seconds: float = 1.0
    """Wait after the first failure. It doubles with each further one."""
    maximum_seconds: float = 60.0
    """Maximum wait between attempts, unless a server asks for more."""
    maximum_requested_seconds: float = 600.0
    """Maximum wait that a server can ask for."""

    def seconds(self, failures: int, key: str, requested: float | None = None) -> float:
        """Return the seconds to wait before the next attempt.

        The wait is between half and all of `first_seconds * 2**(failures - 1)`. A hash of `key` and
        `failures` decides where, so that many readers do not return at the same time.

        Args:
            failures: Number of failures in a row, at least 1.
            key: Name of the thing that is read.
            requested: Seconds that the server asked for, as a lower bound.
        """
        doubled = min(self.maximum_seconds, self.first_seconds * 2 ** (failures - 1))
        return max(
            doubled * (0.5 + unit_hash("back-off", f"{key} {failures}") / 2),
            min(requested or 0.0, self.maximum_requested_seconds),
        )


DEFAULT_RETRIES = RetryPolicy()


def is_transient(error: BaseException) -> bool:
    """Return whether an error, or one of its causes, is a network error that may pass."""
    for cause in _chain(error):
        status = getattr(getattr(cause, "response", None), "status_code", None) or getattr(
            cause, "status", None
        )
        if isinstance(cause, FileNotFoundError | PermissionError) or (
            isinstance(status, int) and not is_transient_status(status)
        ):
            return False
        if (
            isinstance(cause, ConnectionError | TimeoutError)
            or type(cause).__module__.partition(".")[0] in _NETWORK_PACKAGES
        ):
            return True
    return False


def is_transient_status(status: int) -> bool:
    """Return whether a request that got this HTTP status is worth another attempt."""
    return status in {408, 425, 429} or status >= 500


def _chain(error: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__
