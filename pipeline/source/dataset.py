"""Data sets of the Hugging Face hub, or whatever else `datasets` can stream: one shard of ours a shard of theirs."""

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import TYPE_CHECKING

from pipeline.config import Dataset
from pipeline.location import parse_location
from pipeline.source.backoff import PATIENCE, Patience, is_passing
from pipeline.source.documents import Document, Fault, Input, Shard
from pipeline.source.records import to_document
from pipeline.source.stream import Stream, find_dataset, label_of, load_builder, version_of

if TYPE_CHECKING:
    from datasets import DatasetBuilder, IterableDataset


def plan(source: Dataset, name: str = "source.name") -> list[Shard]:
    """One shard per file of the data set's split, in its order. `name` is the config field, for errors.

    Raises:
        UserError: there is no such data set, subset, split or text column, or the hub cannot be reached.
    """
    builder, dataset = find_dataset(source, name)
    entry = Input(path=label_of(source), bytes=0, version=version_of(builder, source.split))
    stem = re.sub(r"[^A-Za-z0-9-]+", "_", entry.path)[-60:]
    return [
        Shard(
            name=f"{stem}-{i:05d}",
            kind="dataset",
            root=parse_location("."),
            key=entry.path,
            inputs=(entry,),
            piece=(i, dataset.num_shards),
        )
        for i in range(dataset.num_shards)
    ]


def read(
    shard: Shard, source: Dataset, patience: Patience = PATIENCE
) -> Iterator[Document | Fault]:
    """Every record of one shard. A record without an id of its own is called `NAME/SPLIT/SHARD/ROW`.

    A shard that `datasets` cannot read on is one fault, `unreadable_dataset`, after what it could read.

    Raises:
        Exception: the network stayed away for all of `patience`.
    """
    index, count = shard.piece or (0, 1)
    version = shard.inputs[0].version or ""

    def open_shard() -> "IterableDataset":
        return (
            _builder(source, version)
            .as_streaming_dataset(split=source.split)
            .shard(num_shards=count, index=index)
        )

    return to_documents(Stream(open_shard, patience=patience), source, f"{shard.key}/{index:05d}")


def to_documents(stream: Stream, source: Dataset, label: str) -> Iterator[Document | Fault]:
    """The stream's rows as documents and faults, in order."""
    records, row, name = iter(stream), 0, label_of(source)
    while True:
        try:
            record = next(records)
        except StopIteration:
            return
        except Exception as error:
            if is_passing(error):
                raise
            yield Fault(
                label,
                None,
                "unreadable_dataset",
                f"after row {row - 1}: {type(error).__name__}: {error}"[:200],
            )
            return
        yield to_document(record, source.columns, label, row, name)
        row += 1


@lru_cache(maxsize=4)
def _builder(source: Dataset, version: str) -> "DatasetBuilder":  # noqa: ARG001
    """Finding a data set's files takes requests: once a version, not once a shard."""
    return load_builder(source)
