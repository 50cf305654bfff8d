"""Transfer of one file over HTTP: retried, resumed, verified, and renamed when it is complete."""

import hashlib
import logging
import os
import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from types import TracebackType
from typing import TypeVar

import httpx2

from data_catalog.disk import writing
from data_catalog.format.own_files import open_own_file
from pipeline.fetch.partial import PartialFile, RemoteFile
from pipeline.source.backoff import DEFAULT_RETRIES, RetryPolicy, is_transient_status

logger = logging.getLogger(__name__)

_TIMEOUT = httpx2.Timeout(30.0, pool=None)
_Result = TypeVar("_Result")


class AbsentFileError(Exception):
    """The server has no such file."""


class FailedTransferError(Exception):
    """The file could not be fetched: the retries are used up, or the server refuses it."""

    def __init__(self, detail: str, attempts: int) -> None:
        super().__init__(detail)
        self.attempts = attempts


class _RetryError(Exception):
    """An error that another attempt may avoid. `seconds` is the wait that the server asked for."""

    def __init__(self, detail: str, seconds: float | None = None) -> None:
        super().__init__(detail)
        self.seconds = seconds


class _RefusedError(Exception):
    """An answer that another attempt would not change."""


@dataclass(frozen=True)
class TransferredFile:
    """A complete file."""

    bytes: int
    sha256: str
    attempts: int
    validator: str | None


class HttpClient:
    """An HTTP client for files, shared by all threads.

    When a server asks for a pause, all threads wait.
    """

    def __init__(
        self,
        workers: int = 8,
        retries: RetryPolicy = DEFAULT_RETRIES,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        limits = httpx2.Limits(max_connections=workers, max_keepalive_connections=workers)
        # "identity" asks for the file as it is stored.
        identity = {
            "Accept-Encoding": "identity",
            "User-Agent": "clustermix",
            **(headers or {}),
        }
        self._http = httpx2.Client(
            follow_redirects=True, timeout=_TIMEOUT, limits=limits, headers=identity
        )
        self._retries, self._pause_until, self._stop = retries, 0.0, threading.Event()

    def __enter__(self) -> "HttpClient":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._http.close()

    def stop(self) -> None:
        """Make every transfer fail soon. Its part is kept for the next time."""
        self._stop.set()

    def ask(self, url: str) -> RemoteFile:
        """Return the size and validator of a file, without the file.

        Raises:
            AbsentFileError: The server has no such file.
            FailedTransferError: The request failed for good.
        """

        def attempt() -> RemoteFile:
            response = self._http.head(url)
            if response.status_code in {405, 501}:  # the server has no HEAD
                return RemoteFile()
            # A signed URL may allow GET only.
            if response.history and response.status_code in {401, 403}:
                return RemoteFile(
                    _size(response.history[0].headers.get("x-linked-size")),
                    None,
                    _linked_sha256(response),
                )
            self._judge(response)
            return _remote(response)

        return self._with_retries(url, attempt, lambda: 0)[0]

    def transfer(self, url: str, path: Path, remote: RemoteFile) -> TransferredFile:
        """Fetch a file to `path`.

        Until it is complete it is `NAME.TAG.part` beside it, where TAG names the content. A part of
        other content than the server has now is never resumed: the request carries If-Range.

        Raises:
            AbsentFileError: The server has no such file.
            FailedTransferError: The transfer failed for good.
            OSError: The local disk failed.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = PartialFile(path, remote)
        digest, attempts = self._with_retries(
            url, lambda: self._attempt(url, partial), partial.held
        )
        size = partial.finish()
        return TransferredFile(size, digest, attempts, partial.remote.validator)

    def _with_retries(
        self, url: str, attempt: Callable[[], _Result], received: Callable[[], int]
    ) -> tuple[_Result, int]:
        """Return the result and the number of attempts.

        Only failures in a row without a new byte count against the retries.
        """
        attempts = failures = 0
        while True:
            attempts, before = attempts + 1, received()
            if self._stop.wait(max(0.0, self._pause_until - time.monotonic())):
                raise FailedTransferError("stopped", attempts - 1)
            try:
                return attempt(), attempts
            except (_RetryError, httpx2.TransportError) as error:
                detail = str(error) or type(error).__name__
                failures = 0 if received() > before else failures + 1
                requested = error.seconds if isinstance(error, _RetryError) else None
            except (httpx2.HTTPError, httpx2.InvalidURL) as error:
                raise FailedTransferError(str(error), attempts) from error
            except _RefusedError as error:
                raise FailedTransferError(str(error), attempts) from error
            if failures >= self._retries.attempts:
                raise FailedTransferError(detail, attempts)
            seconds = self._retries.seconds(max(1, failures), url, requested)
            logger.info("%s: %s. Retrying in %.1f s.", url, detail, seconds)
            if requested:
                self._pause_until = max(self._pause_until, time.monotonic() + seconds)
            if self._stop.wait(seconds):
                raise FailedTransferError("stopped", attempts)

    def _judge(self, response: httpx2.Response) -> None:
        status = response.status_code
        if status in {404, 410}:
            raise AbsentFileError(f"{status}")
        if is_transient_status(status):
            raise _RetryError(
                f"the server answered {status}",
                _requested_seconds(response.headers.get("retry-after")),
            )
        if status not in {200, 206}:
            raise _RefusedError(f"the server answered {status}")

    def _attempt(self, url: str, partial: PartialFile) -> str:
        """Complete the part and return its SHA-256 in hex."""
        held = partial.held()
        if held and held == partial.remote.bytes:
            return partial.digest().hexdigest()
        headers = (
            {"Range": f"bytes={held}-", "If-Range": partial.remote.validator or ""} if held else {}
        )
        with self._http.stream("GET", url, headers=headers) as response:
            if response.status_code == 416:
                partial.drop()
                raise _RetryError("the server has fewer bytes than the local part")
            self._judge(response)
            if response.status_code == 206:
                if not re.match(
                    rf"bytes {held}-[0-9]+/", response.headers.get("content-range", "")
                ):
                    partial.drop()
                    raise _RetryError("the server sent another range than requested")
            else:
                held = 0
                partial.restart(_remote(response))
            return self._receive(response, partial, held)

    def _receive(self, response: httpx2.Response, partial: PartialFile, held: int) -> str:
        digest = partial.digest() if held else hashlib.sha256()
        with (
            writing(partial.path),
            os.fdopen(open_own_file(partial.part, os.O_WRONLY), "wb") as file,
        ):
            file.truncate(held)
            file.seek(held)
            # Blocks have no fixed size: a full one would be lost when the connection breaks.
            for block in response.iter_raw():
                file.write(block)
                digest.update(block)
                if self._stop.is_set():
                    raise _RetryError("stopped")
            file.flush()
            os.fsync(file.fileno())
            size = file.tell()
        expected = partial.remote
        if expected.bytes is not None and size != expected.bytes:
            if size > expected.bytes:
                partial.drop()
            raise _RetryError(f"{size} bytes arrived, expected {expected.bytes}")
        if expected.sha256 is not None and digest.hexdigest() != expected.sha256:
            partial.drop()
            raise _RetryError("the checksum differs from the server's")
        return digest.hexdigest()


def _remote(response: httpx2.Response) -> RemoteFile:
    etag = response.headers.get("etag", "")
    validator = etag if etag.startswith('"') else response.headers.get("last-modified")
    return RemoteFile(
        _size(response.headers.get("content-length")), validator, _linked_sha256(response)
    )


def _size(value: str | None) -> int | None:
    return int(value) if value is not None and value.isdecimal() else None


def _linked_sha256(response: httpx2.Response) -> str | None:
    """Return the checksum that the Hugging Face hub gives before it redirects to a large file."""
    linked = [
        answer.headers.get("x-linked-etag", "").strip('"')
        for answer in (*response.history, response)
    ]
    return next((value for value in linked if re.fullmatch(r"[0-9a-f]{64}", value)), None)


def _requested_seconds(value: str | None) -> float | None:
    """Return the seconds of a Retry-After header, which holds seconds or a date."""
    if value is None:
        return None
    if value.strip().isdecimal():
        return float(value)
    try:
        return max(0.0, (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return None
