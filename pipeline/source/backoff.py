"""How long to go on when a network fails: back-off that doubles, spread so that many readers do not come back at once."""

from collections.abc import Iterator
from dataclasses import dataclass

from pipeline.source.documents import unit_hash

_NETWORK = {
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
class Patience:
    """Tries in a row that may fail without anything gained, and the seconds between them."""

    tries: int = 6
    first_seconds: float = 1.0
    most_seconds: float = 60.0
    most_asked_seconds: float = 600.0  # of what a server may ask for

    def seconds(self, failures: int, key: str, asked: float | None = None) -> float:
        """Seconds to wait after the given number of failures in a row, 1 or more: half to all of `first_seconds * 2**(failures - 1)`.

        Where in that half is a hash of `key` and `failures`. A server that asked for more is given that.
        """
        backed_off = min(self.most_seconds, self.first_seconds * 2 ** (failures - 1))
        return max(
            backed_off * (0.5 + unit_hash("back-off", f"{key} {failures}") / 2),
            min(asked or 0.0, self.most_asked_seconds),
        )


PATIENCE = Patience()


def is_passing(error: BaseException) -> bool:
    """Whether an error, or what it was raised from, is one of a network that may be better in a minute."""
    for cause in _chain(error):
        status = getattr(getattr(cause, "response", None), "status_code", None) or getattr(
            cause, "status", None
        )
        if isinstance(cause, FileNotFoundError | PermissionError) or (
            isinstance(status, int) and not is_passing_status(status)
        ):
            return False
        if (
            isinstance(cause, ConnectionError | TimeoutError)
            or type(cause).__module__.partition(".")[0] in _NETWORK
        ):
            return True
    return False


def is_passing_status(status: int) -> bool:
    """Whether a request that was answered so is worth another try: too many requests, or the server's own trouble."""
    return status in {408, 425, 429} or status >= 500


def _chain(error: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__
