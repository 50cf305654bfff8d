"""Datasets that `datasets` can stream: one shard per shard of the dataset."""

import os
import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.location import parse_location
from pipeline.source.backoff import DEFAULT_RETRIES, RetryPolicy, is_transient
from pipeline.source.config import Columns, Dataset
from pipeline.source.documents import Document, Fault, Input, Inventory, Shard
from pipeline.source.files import file_labels
from pipeline.source.head import HEAD_DOCUMENTS
from pipeline.source.interface import Source
from pipeline.source.records import RecordReader
from pipeline.source.stream import (
    Stream,
    dataset_label,
    dataset_version,
    find_dataset,
    load_builder,
)
from pipeline.source.unread import unread_notes
from pipeline.source.walk import walk

if TYPE_CHECKING:
    from datasets import DatasetBuilder, IterableDataset


class DatasetSource(Source[Dataset]):
    """One split of a dataset, from the Hugging Face hub or a folder."""

    def plan(self) -> Inventory:
        """Return one shard per shard of the dataset's split, in its order.

        Of a dataset in a folder, the files that are not part of the split are noted.

        Raises:
            UserError: The dataset, subset, split or text column does not exist, or the hub cannot
                be reached.
        """
        builder, dataset = find_dataset(self.section, "source.name")
        version = dataset_version(builder, self.section.split)
        entry = Input(path=dataset_label(self.section), bytes=0, version=version)
        stem = re.sub(r"[^A-Za-z0-9-]+", "_", entry.path)[-60:]
        shards = [
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
        return Inventory(shards, _unread(self.section, builder))

    def read(
        self, shard: Shard, retries: RetryPolicy = DEFAULT_RETRIES
    ) -> Iterator[Document | Fault]:
        """Yield every record of one shard.

        The id of a record without one is `NAME/SPLIT/SHARD/ROW`. When `datasets` cannot read on,
        the shard ends with the fault `unreadable_dataset`.

        Raises:
            Exception: The network failed through all of `retries`.
        """
        index, count = shard.piece or (0, 1)
        version = shard.inputs[0].version or ""

        def open_shard() -> "IterableDataset":
            builder = _cached_builder(self.section, version)
            dataset = builder.as_streaming_dataset(split=self.section.split)
            return dataset.shard(num_shards=count, index=index)

        stream = Stream(open_shard, retries=retries)
        return stream_documents(stream, self.section, f"{shard.key}/{index:05d}")

    def choices(self) -> list[object]:
        """Return the names of the columns, if they are not the default ones."""
        return [self.section.columns] if self.section.columns != Columns() else []

    def size(self, shard: Shard) -> float:  # noqa: ARG002
        """Return 1: the shards of a dataset have no known size."""
        return 1.0

    def caveats(self, shards: Sequence[Shard]) -> list[str]:
        """Return a sentence: the number of documents is not known before they are read."""
        return [
            f"A dataset does not tell how many documents it has. This estimate covers the first "
            f"{HEAD_DOCUMENTS} of each of {len(shards)} shards."
        ]


def _unread(source: Dataset, builder: "DatasetBuilder") -> list[Fault]:
    """Return notes on the files in a dataset's folder that its split does not have."""
    folder, files = Path(source.name), getattr(builder.config, "data_files", None)
    if not folder.is_dir() or files is None:
        return []
    chosen = {os.path.realpath(file) for file in files.get(source.split, ())}
    tree = walk(folder)
    unread = {
        **tree.unread,
        "not_chosen": [
            name for name in tree.files if os.path.realpath(folder / name) not in chosen
        ],
    }
    labels = file_labels([name for names in unread.values() for name in names])
    return unread_notes(
        {reason: [labels[name] for name in names] for reason, names in unread.items()}
    )


def stream_documents(stream: Stream, source: Dataset, label: str) -> Iterator[Document | Fault]:
    """Yield the rows of a stream as documents and faults, in order."""
    records, row = iter(stream), 0
    reader = RecordReader(source.columns, label, dataset_label(source))
    while True:
        try:
            record = next(records)
        except StopIteration:
            yield from reader.notes()
            return
        except Exception as error:
            if is_transient(error):
                raise
            detail = f"after row {row - 1}: {type(error).__name__}: {error}"[:200]
            yield Fault(label, None, "unreadable_dataset", detail)
            yield from reader.notes()
            return
        yield reader.document(record, row)
        row += 1


@lru_cache(maxsize=4)
def _cached_builder(source: Dataset, version: str) -> "DatasetBuilder":  # noqa: ARG001
    """Find the dataset's files, which takes requests, once per version and not once per shard."""
    return load_builder(source)
