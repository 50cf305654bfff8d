"""Streams of dataset rows that resume from a stored position and retry after network errors."""

import logging
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_catalog.errors import UserError
from data_catalog.format.manifest import fingerprint
from pipeline.source.backoff import DEFAULT_RETRIES, RetryPolicy, is_transient
from pipeline.source.config import Dataset

if TYPE_CHECKING:
    from datasets import DatasetBuilder, IterableDataset

logger = logging.getLogger(__name__)

_SNAPSHOT_ROWS = 1_000  # maximum rows that a retry reads again


class Stream:
    """The rows of a dataset in order, from the start or from a stored `position()`.

    After a network error the dataset is opened again at the last snapshot of the position, and the
    rows since then are skipped.
    """

    def __init__(
        self,
        open_dataset: Callable[[], "IterableDataset"],
        position: dict[str, Any] | None = None,
        retries: RetryPolicy = DEFAULT_RETRIES,
    ) -> None:
        self._open, self._retries = open_dataset, retries
        self._snapshot, self._rows_since = position, 0
        self._dataset: IterableDataset | None = None

    def position(self) -> dict[str, Any] | None:
        """Return the position after the last row as plain JSON, or None at the start.

        Another stream of the same dataset resumes from it.
        """
        state: dict[str, Any] | None = (
            self._dataset.state_dict() if self._dataset is not None else self._snapshot
        )
        return state

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Yield each row as a mapping.

        Raises:
            Exception: `datasets` raised an error that is not a transient network error, or that
                came `retries.attempts` times in a row.
        """
        failures = 0
        while True:
            try:
                for row in self._from_snapshot():
                    failures = 0
                    yield row
            except Exception as error:
                failures += 1
                if not is_transient(error) or failures >= self._retries.attempts:
                    raise
                seconds = self._retries.seconds(failures, repr(error))
                logger.warning("Reading a dataset: %s. Retrying in %.1f s.", error, seconds)
                time.sleep(seconds)
            else:
                return

    def _from_snapshot(self) -> Iterator[dict[str, Any]]:
        dataset = self._open()
        if self._snapshot is not None:
            dataset.load_state_dict(self._snapshot)
        for row in islice(dataset, self._rows_since, None):
            self._dataset, self._rows_since = dataset, self._rows_since + 1
            if self._rows_since == _SNAPSHOT_ROWS:
                self._snapshot, self._rows_since = dataset.state_dict(), 0
            yield row


def load_builder(source: Dataset) -> "DatasetBuilder":
    """Return the builder, which knows the dataset's splits, columns and files.

    Downloads metadata only. Errors are those of `datasets`.
    """
    from datasets import load_dataset_builder  # noqa: PLC0415

    return load_dataset_builder(source.name, source.subset, revision=source.revision)


def find_dataset(source: Dataset, key: str) -> tuple["DatasetBuilder", "IterableDataset"]:
    """Return a dataset's builder and the split to stream.

    `key` is the config key of the dataset's name, for error messages.

    Raises:
        UserError: The dataset, subset, split or text column does not exist, or the hub cannot be
            reached.
    """
    try:
        builder = load_builder(source)
        dataset = builder.as_streaming_dataset(split=source.split)
    except (FileNotFoundError, PermissionError, ValueError) as error:
        raise UserError(f"{key} {source.name}: {_first_line(error)}.") from error
    except RuntimeError as error:  # raised by `datasets` for datasets that are scripts
        raise UserError(
            f"{key} {source.name}: {_first_line(error)}. Convert it to Parquet or JSON lines first."
        ) from error
    except Exception as error:
        if not is_transient(error):
            raise
        raise UserError(
            f"{key} {source.name}: {_first_line(error)}. "
            "Check the name and the network, then start again."
        ) from error
    names = dataset.column_names
    if names and source.columns.text not in names:
        raise UserError(
            f"{key.removesuffix('name')}columns.text: {source.name} has no column "
            f'"{source.columns.text}". Its columns are {", ".join(names)}.'
        )
    return builder, dataset


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:300].rstrip(".")


def dataset_label(source: Dataset) -> str:
    """Return the name of a dataset in ids, faults and shards: its name, subset and split.

    The folder that a local dataset lies in is left out.
    """
    name = Path(source.name).name if Path(source.name).exists() else source.name
    return "/".join(part for part in (name, source.subset, source.split) if part)


def dataset_version(builder: "DatasetBuilder", split: str) -> str:
    """Return a string that changes when the files of a split do.

    It is made from their ETags, revisions or times of change, as `datasets` gathered them.
    """
    files = getattr(builder.config, "data_files", None)
    if files is None or split not in files:
        return str(builder.hash)
    return fingerprint([list(origin) for origin in files[split].origin_metadata])[:16]
