"""Tell failures of a store that may heal from those that do not."""

import errno

from data_catalog.disk import describe_disk_failure

_PERMANENT = (
    *(FileNotFoundError, FileExistsError, PermissionError, IsADirectoryError, NotADirectoryError),
    NotImplementedError,
)
_PERMANENT_NUMBERS = {errno.EINVAL, errno.ENAMETOOLONG, errno.ENOSYS}
# Clients of stores that have exceptions of their own for failures of the network.
_CLIENTS = {"aiohttp", "asyncio", "azure", "botocore", "gcsfs", "google", "http", "requests"}
_MISCONFIGURED = ("Credential", "Validation", "Region", "Profile", "Config")  # in their names


class CutError(OSError):
    """A transfer ended early, or the file has another size than expected."""

    def __init__(self, found: int, expected: int) -> None:
        super().__init__(f"found {found:,} bytes, expected {expected:,}")


def is_transient(error: Exception) -> bool:
    """Return whether another attempt at an operation on a store may succeed."""
    if isinstance(error, _PERMANENT) or describe_disk_failure(error):
        return False
    if isinstance(error, OSError):
        return error.errno not in _PERMANENT_NUMBERS
    kind = type(error)
    return kind.__module__.partition(".")[0] in _CLIENTS and not any(
        word in kind.__name__ for word in _MISCONFIGURED
    )
