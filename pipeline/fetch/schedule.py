"""Many files over several threads, the largest first, each outcome recorded as it is known."""

import logging
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from data_catalog.errors import UserError
from data_catalog.format.manifest import sha256_file
from pipeline.fetch.partial import Remote, UnderWay
from pipeline.fetch.record import Entry, Record
from pipeline.fetch.transfer import AbsentError, Client, FailedError

logger = logging.getLogger(__name__)

OnFile = Callable[[int, int, int], None]  # files done, files in all, bytes fetched so far


@dataclass(frozen=True)
class Wanted:
    """One file to have."""

    path: str  # below the root
    url: str


@dataclass(frozen=True)
class Summary:
    """What a fetch did; every file that was asked for is counted once."""

    fetched: int = 0
    present: int = 0  # were here already
    absent: int = 0  # the server does not have them
    failed: int = 0
    refused: int = 0  # lines of listings that name no file of the corpus
    bytes: int = 0  # of the fetched
    failures: tuple[Entry, ...] = ()

    def __add__(self, other: "Summary") -> "Summary":
        numbers = {
            name: getattr(self, name) + getattr(other, name) for name in self.__dataclass_fields__
        }
        return Summary(**numbers)


def fetch_files(
    root: Path,
    wanted: Sequence[Wanted],
    record: Record,
    client: Client,
    workers: int,
    retry_absent: bool,
    on_file: OnFile | None,
) -> Summary:
    """Have each file that is not here yet, and record what became of it. What fails does not keep the others.

    Raises:
        UserError: the files are larger than the free space, or the disk cannot be written.
    """
    open_, summary = [], Summary()
    for file in wanted:
        entry = record.entries.get(file.path)
        if _is_here(root, entry):
            summary += Summary(present=1)
        elif entry is not None and entry.state == "absent" and not retry_absent:
            summary += Summary(absent=1)
        else:
            open_.append(file)
    with _threads(workers, client) as pool:
        asked = {pool.submit(_ask, client, file): file for file in open_}
        remotes: dict[Wanted, Remote] = {}
        for future in as_completed(asked):
            file = asked[future]
            outcome = future.result()
            if isinstance(outcome, Remote):
                remotes[file] = outcome
            else:
                record.add(outcome)
                summary += _count(outcome)
        _check_space(root, remotes)
        largest_first = sorted(remotes, key=lambda file: (-(remotes[file].bytes or 0), file.path))
        futures = [pool.submit(_have, root, file, remotes[file], client) for file in largest_first]
        done = len(wanted) - len(futures)
        for entry, was_here in _finished(root, futures):
            record.add(entry)
            summary += Summary(present=1) if was_here else _count(entry)
            done += 1
            if on_file is not None:
                on_file(done, len(wanted), summary.bytes)
    return summary


def _is_here(root: Path, entry: Entry | None) -> bool:
    if entry is None or entry.state != "fetched":
        return False
    path = root / entry.path
    return path.is_file() and path.stat().st_size == entry.bytes


@contextmanager
def _threads(workers: int, client: Client) -> Iterator[ThreadPoolExecutor]:
    """A pool that, when its block is left by an error or an interruption, stops what is under way and starts nothing more."""
    with ThreadPoolExecutor(workers, thread_name_prefix="fetch") as pool:
        try:
            yield pool
        except BaseException:
            client.stop()
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _ask(client: Client, file: Wanted) -> Remote | Entry:
    try:
        return client.ask(file.url)
    except AbsentError:
        return Entry(path=file.path, url=file.url, state="absent", attempts=1)
    except FailedError as error:
        return Entry(
            path=file.path, url=file.url, state="failed", attempts=error.attempts, detail=str(error)
        )


def _have(root: Path, file: Wanted, remote: Remote, client: Client) -> tuple[Entry, bool]:
    """The file's entry, and whether the whole file was here without one: left by a process that was killed, or put there by hand."""
    path = root / file.path
    if remote.bytes is not None and path.is_file() and path.stat().st_size == remote.bytes:
        digest = sha256_file(path)
        if remote.sha256 in {None, digest}:
            return Entry(
                path=file.path,
                url=file.url,
                state="fetched",
                bytes=remote.bytes,
                sha256=digest,
                etag=remote.validator,
            ), True
    try:
        done = client.transfer(file.url, path, remote)
    except AbsentError:
        return Entry(path=file.path, url=file.url, state="absent", attempts=1), False
    except FailedError as error:
        return Entry(
            path=file.path, url=file.url, state="failed", attempts=error.attempts, detail=str(error)
        ), False
    entry = Entry(
        path=file.path,
        url=file.url,
        state="fetched",
        bytes=done.bytes,
        sha256=done.sha256,
        attempts=done.attempts,
    )
    return entry.model_copy(update={"etag": done.validator}), False


def _finished(
    root: Path, futures: Iterable["Future[tuple[Entry, bool]]"]
) -> Iterator[tuple[Entry, bool]]:
    for future in as_completed(futures):
        try:
            yield future.result()
        except OSError as error:
            raise UserError(
                f"{root}: cannot be written ({error.strerror or error}); what is fetched stays, start again to go on"
            ) from error


def _check_space(root: Path, remotes: dict[Wanted, Remote]) -> None:
    needed = sum(
        (remote.bytes or 0) - UnderWay(root / file.path, remote).held()
        for file, remote in remotes.items()
    )
    free = shutil.disk_usage(root).free
    if needed > free:
        raise UserError(
            f"{root}: {len(remotes)} files of {needed:,} bytes in all are to come, but only {free:,} bytes are free; "
            "ask for fewer shards, or fetch to a larger disk"
        )


def _count(entry: Entry) -> Summary:
    if entry.state == "failed":
        logger.warning("%s: %s (%d attempts)", entry.url, entry.detail, entry.attempts)
        return Summary(failed=1, failures=(entry,))
    return Summary(fetched=1, bytes=entry.bytes) if entry.state == "fetched" else Summary(absent=1)
