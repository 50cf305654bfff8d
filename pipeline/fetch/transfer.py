"""One file over HTTP: asked for again while it fails, gone on with where it stopped, checked, and renamed into place when it is whole."""

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

from pipeline.fetch.partial import Remote, UnderWay
from pipeline.source.backoff import PATIENCE, Patience, is_passing_status

logger = logging.getLogger(__name__)

_SECONDS = httpx2.Timeout(30.0, pool=None)
Result = TypeVar("Result")


class AbsentError(Exception):
    """The server has no such file."""


class FailedError(Exception):
    """The file could not be had, for all our patience or because the server will not give it."""

    def __init__(self, detail: str, attempts: int) -> None:
        super().__init__(detail)
        self.attempts = attempts


class _AgainError(Exception):
    """Worth another try; `seconds` is what the server asked for."""

    def __init__(self, detail: str, seconds: float | None = None) -> None:
        super().__init__(detail)
        self.seconds = seconds


class _RefusedError(Exception):
    """An answer that another try would not change."""


@dataclass(frozen=True)
class Transferred:
    bytes: int
    sha256: str
    attempts: int
    validator: str | None


class Client:
    """Asks servers for files. One for all threads; when a server asks for quiet, all of them are."""

    def __init__(
        self,
        workers: int = 8,
        patience: Patience = PATIENCE,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        limits = httpx2.Limits(max_connections=workers, max_keepalive_connections=workers)
        identity = {
            "Accept-Encoding": "identity",
            "User-Agent": "clustermix",
            **(headers or {}),
        }  # the file as it lies there
        self._http = httpx2.Client(
            follow_redirects=True, timeout=_SECONDS, limits=limits, headers=identity
        )
        self._patience, self._quiet_until, self._stop = patience, 0.0, threading.Event()

    def __enter__(self) -> "Client":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._http.close()

    def stop(self) -> None:
        """Make every transfer under way fail soon; what it has stays for the next time."""
        self._stop.set()

    def ask(self, url: str) -> Remote:
        """Size and validator of a file, without the file.

        Raises:
            AbsentError, FailedError: see there.
        """

        def attempt() -> Remote:
            response = self._http.head(url)
            if response.status_code in {
                405,
                501,
            }:  # a server that has no HEAD: the transfer will tell
                return Remote()
            if response.history and response.status_code in {
                401,
                403,
            }:  # a signed address that allows GET alone
                return Remote(
                    _size(response.history[0].headers.get("x-linked-size")),
                    None,
                    _linked_sha256(response),
                )
            self._judge(response)
            return _remote(response)

        return self._patiently(url, attempt, lambda: 0)[0]

    def transfer(self, url: str, path: Path, remote: Remote) -> Transferred:
        """Put the file at `path`. Until it is whole it is `NAME.TAG.part` beside it, TAG telling which content it is part of.

        A part of another content than the server has now is never gone on with: the request carries If-Range.

        Raises:
            AbsentError, FailedError: see there.
            OSError: this machine's disk, not the network.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        under_way = UnderWay(path, remote)
        digest, attempts = self._patiently(
            url, lambda: self._attempt(url, under_way), under_way.held
        )
        size = under_way.finish()
        return Transferred(size, digest, attempts, under_way.remote.validator)

    def _patiently(
        self, url: str, attempt: Callable[[], Result], gained: Callable[[], int]
    ) -> tuple[Result, int]:
        """The result and how many attempts it took; failures count only in a row without a byte gained."""
        attempts = failures = 0
        while True:
            attempts, before = attempts + 1, gained()
            if self._stop.wait(max(0.0, self._quiet_until - time.monotonic())):
                raise FailedError("stopped", attempts - 1)
            try:
                return attempt(), attempts
            except (_AgainError, httpx2.TransportError) as error:
                detail = str(error) or type(error).__name__
                failures = 0 if gained() > before else failures + 1
                asked = error.seconds if isinstance(error, _AgainError) else None
            except (httpx2.HTTPError, httpx2.InvalidURL) as error:
                raise FailedError(str(error), attempts) from error
            except _RefusedError as error:
                raise FailedError(str(error), attempts) from error
            if failures >= self._patience.tries:
                raise FailedError(detail, attempts)
            seconds = self._patience.seconds(max(1, failures), url, asked)
            logger.info("%s: %s; trying again in %.1f s", url, detail, seconds)
            if asked:
                self._quiet_until = max(self._quiet_until, time.monotonic() + seconds)
            if self._stop.wait(seconds):
                raise FailedError("stopped", attempts)

    def _judge(self, response: httpx2.Response) -> None:
        status = response.status_code
        if status in {404, 410}:
            raise AbsentError(f"{status}")
        if is_passing_status(status):
            raise _AgainError(
                f"the server answered {status}", _asked_seconds(response.headers.get("retry-after"))
            )
        if status not in {200, 206}:
            raise _RefusedError(f"the server answered {status}")

    def _attempt(self, url: str, under_way: UnderWay) -> str:
        """Bring the part to its end and return its SHA-256 in hex."""
        held = under_way.held()
        if held and held == under_way.remote.bytes:
            return under_way.digest().hexdigest()
        headers = (
            {"Range": f"bytes={held}-", "If-Range": under_way.remote.validator or ""}
            if held
            else {}
        )
        with self._http.stream("GET", url, headers=headers) as response:
            if response.status_code == 416:
                under_way.drop()
                raise _AgainError("the server has less than the part that is here")
            self._judge(response)
            if response.status_code == 206:
                if not re.match(
                    rf"bytes {held}-[0-9]+/", response.headers.get("content-range", "")
                ):
                    under_way.drop()
                    raise _AgainError("the server sent another range than it was asked for")
            else:
                held = 0
                under_way.restart(_remote(response))
            return self._receive(response, under_way, held)

    def _receive(self, response: httpx2.Response, under_way: UnderWay, held: int) -> str:
        digest = under_way.digest() if held else hashlib.sha256()
        with under_way.part.open("ab" if held else "wb") as file:
            for block in response.iter_raw():  # as they come: blocks of one size would lose what is held back when the connection breaks
                file.write(block)
                digest.update(block)
                if self._stop.is_set():
                    raise _AgainError("stopped")
            file.flush()
            os.fsync(file.fileno())
            size = file.tell()
        expected = under_way.remote
        if expected.bytes is not None and size != expected.bytes:
            if size > expected.bytes:
                under_way.drop()
            raise _AgainError(f"{size} bytes came, {expected.bytes} were said")
        if expected.sha256 is not None and digest.hexdigest() != expected.sha256:
            under_way.drop()
            raise _AgainError("the checksum differs from the one the server says")
        return digest.hexdigest()


def _remote(response: httpx2.Response) -> Remote:
    etag = response.headers.get("etag", "")
    validator = etag if etag.startswith('"') else response.headers.get("last-modified")
    return Remote(
        _size(response.headers.get("content-length")), validator, _linked_sha256(response)
    )


def _size(value: str | None) -> int | None:
    return int(value) if value is not None and value.isdecimal() else None


def _linked_sha256(response: httpx2.Response) -> str | None:
    """What the Hugging Face hub says of a large file before it redirects to where that is stored."""
    linked = [
        answer.headers.get("x-linked-etag", "").strip('"')
        for answer in (*response.history, response)
    ]
    return next((found for found in linked if re.fullmatch(r"[0-9a-f]{64}", found)), None)


def _asked_seconds(value: str | None) -> float | None:
    """Retry-After: seconds, or a date."""
    if value is None:
        return None
    if value.strip().isdecimal():
        return float(value)
    try:
        return max(0.0, (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return None
