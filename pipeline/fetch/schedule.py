"""Transfers of many files in several threads, the largest first. Each outcome is recorded."""

import logging
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from data_catalog.errors import UserError
from data_catalog.format.manifest import sha256_file
from pipeline.fetch.partial import PartialFile, RemoteFile
from pipeline.fetch.record import FetchEntry, FetchRecord
from pipeline.fetch.transfer import AbsentFileError, FailedTransferError, HttpClient

logger = logging.getLogger(__name__)

OnFetchedFile = Callable[[int, int, int], None]  # called with finished files, all files, bytes


@dataclass(frozen=True)
class RequestedFile:
    """One file to fetch, with its path below the root."""

    path: str
    url: str


@dataclass(frozen=True)
class FetchSummary:
    """The number of requested files by outcome."""

    fetched: int = 0
    present: int = 0
    """Files that were on disk already."""
    absent: int = 0
    """Files that the server does not have."""
    failed: int = 0
    refused: int = 0
    """Lines of listings that name no file of the corpus."""
    bytes: int = 0
    """Bytes of the fetched files."""
    failures: tuple[FetchEntry, ...] = ()

    def __add__(self, other: "FetchSummary") -> "FetchSummary":
        numbers = {
            name: getattr(self, name) + getattr(other, name) for name in self.__dataclass_fields__
        }
        return FetchSummary(**numbers)


def fetch_files(
    root: Path,
    requested: Sequence[RequestedFile],
    record: FetchRecord,
    client: HttpClient,
    workers: int,
    retry_absent: bool,
    on_file: OnFetchedFile | None,
) -> FetchSummary:
    """Fetch each file that is not on disk yet, and record its outcome.

    The failure of one file does not stop the others.

    Args:
        root: Folder that the paths are relative to.
        requested: The files.
        record: The record of the folder.
        client: The client, which is shared by all threads.
        workers: Number of threads.
        retry_absent: Request files again that the server did not have.
        on_file: Called after each file.

    Returns:
        The number of files by outcome.

    Raises:
        UserError: The files are larger than the free space.
        OSError: The disk cannot be written. Fetched files and parts are kept.
    """
    missing, summary = [], FetchSummary()
    for file in requested:
        entry = record.entries.get(file.path)
        if _is_present(root, entry):
            summary += FetchSummary(present=1)
        elif entry is not None and entry.state == "absent" and not retry_absent:
            summary += FetchSummary(absent=1)
        else:
            missing.append(file)
    with _threads(workers, client) as pool:
        answers = {pool.submit(_ask, client, file): file for file in missing}
        remotes: dict[RequestedFile, RemoteFile] = {}
        for future in as_completed(answers):
            file = answers[future]
            outcome = future.result()
            if isinstance(outcome, RemoteFile):
                remotes[file] = outcome
            else:
                record.add(outcome)
                summary += _count(outcome)
        _check_space(root, remotes)
        largest_first = sorted(remotes, key=lambda file: (-(remotes[file].bytes or 0), file.path))
        transfers = [
            pool.submit(_fetch, root, file, remotes[file], client) for file in largest_first
        ]
        done = len(requested) - len(transfers)
        for transfer in as_completed(transfers):
            entry, was_present = transfer.result()
            record.add(entry)
            summary += FetchSummary(present=1) if was_present else _count(entry)
            done += 1
            if on_file is not None:
                on_file(done, len(requested), summary.bytes)
    return summary


def _is_present(root: Path, entry: FetchEntry | None) -> bool:
    if entry is None or entry.state != "fetched":
        return False
    path = root / entry.path
    return path.is_file() and path.stat().st_size == entry.bytes


@contextmanager
def _threads(workers: int, client: HttpClient) -> Iterator[ThreadPoolExecutor]:
    """Give a thread pool. An error or interruption in its block stops all transfers."""
    with ThreadPoolExecutor(workers, thread_name_prefix="fetch") as pool:
        try:
            yield pool
        except BaseException:
            client.stop()
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _ask(client: HttpClient, file: RequestedFile) -> RemoteFile | FetchEntry:
    try:
        return client.ask(file.url)
    except AbsentFileError:
        return FetchEntry(path=file.path, url=file.url, state="absent", attempts=1)
    except FailedTransferError as error:
        return FetchEntry(
            path=file.path, url=file.url, state="failed", attempts=error.attempts, detail=str(error)
        )


def _fetch(
    root: Path, file: RequestedFile, remote: RemoteFile, client: HttpClient
) -> tuple[FetchEntry, bool]:
    """Fetch a file, and return its entry and whether the whole file was on disk already.

    That is so if a process was killed before it wrote the entry, or the file was put there by hand.
    """
    path = root / file.path
    if remote.bytes is not None and path.is_file() and path.stat().st_size == remote.bytes:
        digest = sha256_file(path)
        if remote.sha256 in {None, digest}:
            return FetchEntry(
                path=file.path,
                url=file.url,
                state="fetched",
                bytes=remote.bytes,
                sha256=digest,
                etag=remote.validator,
            ), True
    try:
        done = client.transfer(file.url, path, remote)
    except AbsentFileError:
        return FetchEntry(path=file.path, url=file.url, state="absent", attempts=1), False
    except FailedTransferError as error:
        return FetchEntry(
            path=file.path, url=file.url, state="failed", attempts=error.attempts, detail=str(error)
        ), False
    entry = FetchEntry(
        path=file.path,
        url=file.url,
        state="fetched",
        bytes=done.bytes,
        sha256=done.sha256,
        attempts=done.attempts,
    )
    return entry.model_copy(update={"etag": done.validator}), False


def _check_space(root: Path, remotes: dict[RequestedFile, RemoteFile]) -> None:
    needed = sum(
        (remote.bytes or 0) - PartialFile(root / file.path, remote).held()
        for file, remote in remotes.items()
    )
    free = shutil.disk_usage(root).free
    if needed > free:
        raise UserError(
            f"{root}: the {len(remotes)} missing files have {needed:,} bytes in total, "
            f"but only {free:,} bytes are free. Request fewer shards, or use a larger disk."
        )


def _count(entry: FetchEntry) -> FetchSummary:
    if entry.state == "failed":
        logger.warning("%s: %s (%d attempts)", entry.url, entry.detail, entry.attempts)
        return FetchSummary(failed=1, failures=(entry,))
    return (
        FetchSummary(fetched=1, bytes=entry.bytes)
        if entry.state == "fetched"
        else FetchSummary(absent=1)
    )
