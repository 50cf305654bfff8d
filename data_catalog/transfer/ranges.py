"""Byte ranges of the objects of a store, many at a time.

The checksum of an object that is read in parts cannot be compared. Instead its size is compared,
and on S3 all its ranges are read from one version of the object: the first answer's ETag is sent
with every later request, and the store refuses another version.
"""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

from data_catalog.errors import UserError, first_line

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

REQUESTS = 64  # requests of a process that are in flight at the same time
# Time that failing requests are repeated for. Stores ask to slow down, and networks break.
PATIENCE_SECONDS = 120.0
_FIRST_WAIT, _LONGEST_WAIT = 0.1, 3.0  # seconds between the attempts
_PERMANENT = (FileNotFoundError, PermissionError, NotImplementedError)


class StoreError(UserError):
    """A store cannot be reached, or an object is not that of the catalog."""


class ByteRange(NamedTuple):
    """The bytes `start <= place < end` of an object."""

    name: str
    start: int
    end: int


class ObjectRanges:
    """Objects below a URL, read by ranges. Any thread may read them."""

    def __init__(self, url: str, sizes: Mapping[str, int]) -> None:
        """Prepare to read, without contacting the store.

        Args:
            url: fsspec URL that the names of the objects are below.
            sizes: Expected size of each object, in bytes.
        """
        self.url, self._sizes = url.rstrip("/"), sizes
        self._pins: dict[str, str] = {}
        self._lock = threading.Lock()

    def pin(self, name: str) -> str:
        """Return what identifies the version of an object that was read, or an empty text."""
        return self._pins.get(name, "")

    def read(self, ranges: Sequence[ByteRange]) -> list[bytes]:
        """Return the content of each range.

        Failing requests are repeated for `PATIENCE_SECONDS`.

        Raises:
            StoreError: The store cannot be reached, an object is missing, has another size, or was
                replaced since it was first read.
        """
        from fsspec.asyn import sync  # noqa: PLC0415

        if not ranges:
            return []
        if self._is_s3:
            return sync(self._system.loop, self._read_s3, ranges)
        return self._read_any(ranges)

    @cached_property
    def _opened(self) -> tuple[AbstractFileSystem, str]:
        from fsspec.core import url_to_fs  # noqa: PLC0415

        try:
            system, base = url_to_fs(self.url)
        except (ValueError, ImportError) as error:
            raise UserError(
                f"{self.url}: cannot be opened ({error}). Expected a URL such as "
                "s3://bucket/catalog, and its package."
            ) from error
        if "s3" in system.protocol:
            # Failures are repeated here alone. All requests in flight need a connection.
            patient = {
                **(system.config_kwargs or {}),
                "max_pool_connections": REQUESTS,
                "retries": {"max_attempts": 0},
            }
            options = {**system.storage_options, "config_kwargs": patient}
            system = type(system)(*system.storage_args, **options)
            system.retries = 1
        return system, base.rstrip("/")

    @property
    def _system(self) -> AbstractFileSystem:
        return self._opened[0]

    @property
    def _is_s3(self) -> bool:
        return "s3" in self._system.protocol

    async def _read_s3(self, ranges: Sequence[ByteRange]) -> list[bytes]:
        slots, until = asyncio.Semaphore(REQUESTS), time.monotonic() + PATIENCE_SECONDS
        tasks = [asyncio.ensure_future(self._repeat_s3(wanted, slots, until)) for wanted in ranges]
        try:
            return await asyncio.gather(*tasks)
        except BaseException:
            for task in tasks:
                task.cancel()
            raise

    async def _repeat_s3(self, wanted: ByteRange, slots: asyncio.Semaphore, until: float) -> bytes:
        wait = _FIRST_WAIT
        while True:
            try:
                async with slots:
                    return await self._get_s3(wanted)
            except Exception as error:
                self._refuse_permanent(wanted, error, until)
            await asyncio.sleep(wait * random.uniform(0.5, 1))  # noqa: S311 (spreads the attempts)
            wait = min(2 * wait, _LONGEST_WAIT)

    async def _get_s3(self, wanted: ByteRange) -> bytes:
        bucket, _, key = f"{self._opened[1]}/{wanted.name}".partition("/")
        pin = self.pin(wanted.name)
        answer: Mapping[str, Any] = await self._system._call_s3(
            "get_object",
            Bucket=bucket,
            Key=key,
            Range=f"bytes={wanted.start}-{wanted.end - 1}",
            **({"IfMatch": pin} if pin else {}),
        )
        body = answer["Body"]
        try:
            content: bytes = await body.read()
        finally:
            body.close()
        size = str(answer.get("ContentRange", "")).rpartition("/")[2]
        if size.isdecimal():
            self._check_size(wanted.name, int(size))
        self._keep_pin(wanted.name, str(answer.get("ETag", "")))
        return _whole(wanted, content)

    def _read_any(self, ranges: Sequence[ByteRange]) -> list[bytes]:
        """Read from a store of any other kind, of which only the size of an object is known."""
        system, base = self._opened
        until, wait = time.monotonic() + PATIENCE_SECONDS, _FIRST_WAIT
        contents: list[bytes | None] = [None] * len(ranges)
        while missing := [i for i, content in enumerate(contents) if content is None]:
            for i, content in zip(
                missing, self._attempt(system, base, ranges, missing), strict=True
            ):
                if isinstance(content, bytes):
                    contents[i] = content
                else:
                    self._refuse_permanent(ranges[i], content, until)
            if None in contents:
                time.sleep(wait)
                wait = min(2 * wait, _LONGEST_WAIT)
        return [content for content in contents if content is not None]

    def _attempt(
        self, system: AbstractFileSystem, base: str, ranges: Sequence[ByteRange], chosen: list[int]
    ) -> list[bytes | Exception]:
        wanted = [ranges[i] for i in chosen]
        try:
            for name in {one.name for one in wanted} - self._pins.keys():
                self._check_size(name, int(system.info(f"{base}/{name}")["size"]))
                self._keep_pin(name, "")
            contents = system.cat_ranges(
                [f"{base}/{one.name}" for one in wanted],
                [one.start for one in wanted],
                [one.end for one in wanted],
                on_error="return",
            )
        except Exception as error:
            return [error] * len(wanted)
        found: list[bytes | Exception] = []
        for one, content in zip(wanted, contents, strict=True):
            try:
                found.append(content if isinstance(content, Exception) else _whole(one, content))
            except OSError as error:
                found.append(error)
        return found

    def _check_size(self, name: str, size: int) -> None:
        if size != self._sizes[name]:
            raise StoreError(
                f"{self.url}/{name}: found {size:,} bytes, expected {self._sizes[name]:,}. The "
                "object is not that of this catalog. Export the catalog again."
            )

    def _keep_pin(self, name: str, pin: str) -> None:
        with self._lock:
            first = self._pins.setdefault(name, pin)
        if first != pin:
            raise self._replaced(name)

    def _replaced(self, name: str) -> StoreError:
        return StoreError(
            f"{self.url}/{name}: the object was replaced while it was read. Check that the "
            "catalog is whole, then run the command again."
        )

    def _refuse_permanent(self, wanted: ByteRange, error: Exception, until: float) -> None:
        """Raise a sentence if a failure does not heal, or if it did not until now."""
        if isinstance(error, UserError):
            raise error
        if self.pin(wanted.name) and _status(error) == 412:
            raise self._replaced(wanted.name) from error
        if isinstance(error, FileNotFoundError):
            raise StoreError(
                f"{self.url}/{wanted.name}: the object is missing. Export the catalog again."
            ) from error
        if isinstance(error, _PERMANENT) or time.monotonic() > until:
            raise StoreError(
                f"{self.url}: access failed ({type(error).__name__}: {first_line(error)}). Check "
                "the URL, your credentials and the network, then run the command again."
            ) from error


def _whole(wanted: ByteRange, content: bytes) -> bytes:
    """Return a content of the right length. A transfer that was cut is an `OSError`."""
    if len(content) != wanted.end - wanted.start:
        raise OSError(f"received {len(content)} of {wanted.end - wanted.start} bytes")
    return bytes(content)


def _status(error: BaseException) -> int:
    """Return the HTTP status of an S3 client's error, or 0."""
    response = getattr(error, "response", None) or getattr(error.__cause__, "response", None)
    metadata = response.get("ResponseMetadata", {}) if isinstance(response, dict) else {}
    return int(metadata.get("HTTPStatusCode", 0))
