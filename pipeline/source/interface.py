"""The interface of a source, and the places that targets reserve for themselves."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from data_catalog.settings import Settings
from pipeline.location import File, Place
from pipeline.source.documents import Document, Fault, Inventory, Shard
from pipeline.source.head import HEAD_DOCUMENTS, Head, head_of_documents

Section = TypeVar("Section", bound=Settings)


@dataclass(frozen=True)
class Reservations:
    """Places of a corpus that belong to targets. Sources leave their documents out."""

    paths: tuple[Place, ...] = ()
    modules: tuple[str, ...] = ()
    """Prefixes of Python modules, in order (python-docs)."""


NO_RESERVATIONS = Reservations()


@dataclass(frozen=True)
class Source(ABC, Generic[Section]):
    """A corpus of one kind.

    A new kind is a subclass with `plan` and `read`, an entry in `pipeline.source.registry.SOURCES`
    and a config class in `pipeline.source.config.AnySource`. Override the other methods where their
    defaults do not fit.
    """

    section: Section
    """The section `source` of the config."""
    reservations: Reservations = NO_RESERVATIONS

    @abstractmethod
    def plan(self) -> Inventory:
        """Return the shards of the corpus and what is not read, without reading documents.

        The shards are always in the same order. Each has a name of its own and the identity of its
        files. Every file below the source's path is in a shard or in a note.

        Raises:
            UserError: The corpus is missing or empty, or a filter leaves nothing.
        """

    @abstractmethod
    def read(self, shard: Shard) -> Iterator[Document | Fault]:
        """Yield the documents of a shard in a fixed order, and a fault for each unreadable record.

        A broken file gives faults, not errors. Memory stays bounded whatever the file holds.

        Raises:
            OSError: The network failed. Reading again may help.
        """

    def choices(self) -> list[object]:
        """Return the settings that decide which documents a shard gives.

        They enter the fingerprint of each part: when one changes, the shards are read again.
        """
        return []

    def size(self, shard: Shard) -> float:
        """Return a number that a shard's documents are roughly proportional to, in any unit."""
        return float(sum(file.bytes for file in shard.inputs))

    def read_head(self, shard: Shard) -> Head:
        """Return the first documents of a shard, for an estimate.

        By default these are at most `HEAD_DOCUMENTS`, and the shard is assumed to have no more.
        """
        return head_of_documents(self.read(shard), HEAD_DOCUMENTS)

    def side_files(self, shard: Shard) -> list[tuple[File, int]]:  # noqa: ARG002
        """Return the JSON lines files that are read with a shard but are not part of its head.

        Each comes with its size in bytes.
        """
        return []

    def caveats(self, shards: Sequence[Shard]) -> list[str]:  # noqa: ARG002
        """Return sentences about the limits of an estimate that is made from heads."""
        return []
