"""A data set that `datasets` streams, read from a position that can be written down, over a network that fails now and then."""

import logging
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_catalog.errors import UserError
from data_catalog.format.manifest import fingerprint
from pipeline.config import Dataset
from pipeline.source.backoff import PATIENCE, Patience, is_passing

if TYPE_CHECKING:
    from datasets import DatasetBuilder, IterableDataset

logger = logging.getLogger(__name__)

_SNAPSHOT_ROWS = 1_000  # a retry reads at most so many rows again


class Stream:
    """The rows of a data set in their order, from the start or from a stored `position()`.

    After a network error it opens the data set anew, goes back to the last snapshot of the position and passes over the rows since.
    """

    def __init__(
        self,
        open_dataset: Callable[[], "IterableDataset"],
        position: dict[str, Any] | None = None,
        patience: Patience = PATIENCE,
    ) -> None:
        self._open, self._patience = open_dataset, patience
        self._snapshot, self._since = position, 0
        self._dataset: IterableDataset | None = None

    def position(self) -> dict[str, Any] | None:
        """Plain JSON that another stream of the same data set can be given to go on after the last row; None: at the start."""
        state: dict[str, Any] | None = (
            self._dataset.state_dict() if self._dataset is not None else self._snapshot
        )
        return state

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Each row as a mapping.

        Raises:
            Exception: what `datasets` raised, if it is no passing fault of the network or stayed for `patience.tries` in a row.
        """
        failures = 0
        while True:
            try:
                for row in self._from_snapshot():
                    failures = 0
                    yield row
            except Exception as error:
                failures += 1
                if not is_passing(error) or failures >= self._patience.tries:
                    raise
                seconds = self._patience.seconds(failures, repr(error))
                logger.warning("reading a data set: %s; trying again in %.1f s", error, seconds)
                time.sleep(seconds)
            else:
                return

    def _from_snapshot(self) -> Iterator[dict[str, Any]]:
        dataset = self._open()
        if self._snapshot is not None:
            dataset.load_state_dict(self._snapshot)
        for row in islice(dataset, self._since, None):
            self._dataset, self._since = dataset, self._since + 1
            if self._since == _SNAPSHOT_ROWS:
                self._snapshot, self._since = dataset.state_dict(), 0
            yield row


def load_builder(source: Dataset) -> "DatasetBuilder":
    """What knows the data set's splits, columns and files; of the data, only what says so is downloaded. Errors as `datasets` raises."""
    from datasets import load_dataset_builder  # noqa: PLC0415

    return load_dataset_builder(source.name, source.subset, revision=source.revision)


def find_dataset(source: Dataset, name: str) -> tuple["DatasetBuilder", "IterableDataset"]:
    """The builder and the split to stream; `name` is the config field, for errors.

    Raises:
        UserError: there is no such data set, subset, split or text column, or the hub cannot be reached.
    """
    try:
        builder = load_builder(source)
        dataset = builder.as_streaming_dataset(split=source.split)
    except (FileNotFoundError, PermissionError, ValueError) as error:
        raise UserError(f"{name} {source.name}: {_first_line(error)}") from error
    except RuntimeError as error:  # `datasets` says so of data sets that are programs
        raise UserError(
            f"{name} {source.name}: {_first_line(error)}; convert it to Parquet or JSON lines first"
        ) from error
    except Exception as error:
        if not is_passing(error):
            raise
        raise UserError(
            f"{name} {source.name}: {_first_line(error)}; check the name and the network, then start again"
        ) from error
    if dataset.column_names and source.columns.text not in dataset.column_names:
        field = name.removesuffix("name") + "columns.text"
        raise UserError(
            f'{field}: {source.name} has no column "{source.columns.text}"; it has {", ".join(dataset.column_names)}'
        )
    return builder, dataset


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:300].rstrip(".")


def label_of(source: Dataset) -> str:
    """How ids, faults and shards call the data set: its name, subset and split, whatever folder it lies in."""
    name = Path(source.name).name if Path(source.name).exists() else source.name
    return "/".join(part for part in (name, source.subset, source.split) if part)


def version_of(builder: "DatasetBuilder", split: str) -> str:
    """What changes when the data set's files do: their ETags, revisions or times of change, as `datasets` gathered them."""
    files = getattr(builder.config, "data_files", None)
    if files is None or split not in files:
        return str(builder.hash)
    return fingerprint([list(origin) for origin in files[split].origin_metadata])[:16]
