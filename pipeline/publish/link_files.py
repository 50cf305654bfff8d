"""Put finished parts' files in their places in a catalog.

Data files are placed once and never changed. Their sizes and checksums come from the sidecars of
the parts, so no file is read.
"""

import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data_catalog.format import tables
from data_catalog.format.damage import DamagedFileError
from data_catalog.format.layout import FOLDERS, Layout
from data_catalog.format.manifest import FileIdentity
from data_catalog.format.target_record import TARGET_RECORD
from data_catalog.place import Folder, Place
from pipeline.parts import Part, StandingFile
from pipeline.quality.stage import SIGNALS_FILE
from pipeline.shard.stage import DOCUMENT_FILES, OFFSETS_FILE, TOKEN_FILES


class PlacedFile(NamedTuple):
    """A file of a version of a catalog."""

    path: Path
    """Its path in the folder where the version is put together."""
    identity: FileIdentity
    stored: Place | None = None
    """The object of the same content, if a part in a store has it. The file at `path` may be
    missing then."""

    @property
    def standing(self) -> StandingFile:
        """The file where it is."""
        return StandingFile(self.stored or self.path, self.identity)


_OF_A_TARGET = ("documents.parquet", "tokens.arrow", TARGET_RECORD)


@dataclass(frozen=True)
class StoredPart:
    """A part of `shard_part` and the place of its files in a catalog."""

    part: Part
    top: int
    first_number: int
    """Number of its first file among those of the top-level domain."""


def number_files(
    stored: Sequence[Sequence[Part]], first_numbers: Sequence[int]
) -> list[StoredPart]:
    """Number the files of each top-level domain in the order of their leaves.

    Args:
        stored: Parts of `shard_part` by top-level domain, in the order of their leaves.
        first_numbers: First free number of each top-level domain.
    """
    numbered = []
    for top, (parts, number) in enumerate(zip(stored, first_numbers, strict=True)):
        for part in parts:
            numbered.append(StoredPart(part, top, number))
            number += len(part.names_like(DOCUMENT_FILES))  # noqa: PLW2901
    return numbered


def stored_offsets(stored: Sequence[StoredPart]) -> pa.Table:
    """Return the offsets of all parts (tables.OFFSETS), with the numbers of the placed files."""
    pieces = [tables.OFFSETS.empty_table()]
    place = tables.OFFSETS.get_field_index("part")
    for piece in stored:
        table = pq.read_table(piece.part.file(OFFSETS_FILE), schema=tables.OFFSETS)
        numbers = pc.add(table["part"], pa.scalar(piece.first_number, table["part"].type))
        pieces.append(table.set_column(place, tables.OFFSETS.field(place), numbers))
    return pa.concat_tables(pieces)


def place_stored(stored: Sequence[StoredPart], layout: Layout) -> Iterator[PlacedFile]:
    """Place documents and tokens."""
    for piece in stored:
        part, files, first = piece.part, piece.part.files(), piece.first_number
        for number, name in enumerate(part.names_like(DOCUMENT_FILES), first):
            yield _place(part, name, files[name], layout.documents(piece.top, number))
        for number, name in enumerate(part.names_like(TOKEN_FILES), first):
            yield _place(part, name, files[name], layout.tokens(piece.top, number))


def place_verdicts(
    judged: Sequence[Part], verdicts: Sequence[Part], layout: Layout
) -> Iterator[PlacedFile]:
    """Place the signals of every document read and the final verdicts on them.

    The rows of the two agree, file by file. `verdicts` has the part with the final verdicts for
    each part of `judged`.
    """
    files_of_finals: dict[Folder, dict[str, FileIdentity]] = {}  # one may be about all parts
    for part, final in zip(judged, verdicts, strict=True):
        if final.place not in files_of_finals:
            files_of_finals[final.place] = final.files()
        if identity := part.files().get(SIGNALS_FILE):
            yield _place(part, SIGNALS_FILE, identity, layout.signals(part.name))
            name = f"{part.name}.parquet"
            yield _place(
                final, name, files_of_finals[final.place][name], layout.verdicts(part.name)
            )


def place_targets(targets: Sequence[Part], layout: Layout) -> Iterator[PlacedFile]:
    for part in targets:
        files, folder = part.files(), layout.target(part.name)
        for name in _OF_A_TARGET:
            yield _place(part, name, files[name], folder / name)


def place_all(part: Part, folder: Path) -> Iterator[PlacedFile]:
    """Place every file of a part except its sidecar."""
    for name, identity in part.files().items():
        yield _place(part, name, identity, folder / name, is_read=True)


def placed_names(placed: Sequence[PlacedFile], root: Path) -> dict[str, FileIdentity]:
    """Return the files as a manifest lists them, keyed by the path below `root`."""
    return {file.path.relative_to(root).as_posix(): file.identity for file in placed}


def _place(
    part: Part, name: str, identity: FileIdentity, place: Path, *, is_read: bool = False
) -> PlacedFile:
    """Link a file of a part into its place.

    A file of a part in a store is left there, unless `is_read`: the tables are made from it.

    Raises:
        DamagedFileError: It has another size than the sidecar of its part records.
    """
    found = part.source(name)
    stored = found if isinstance(found, Place) else None
    if stored is not None and not is_read:
        return PlacedFile(place, identity, stored)
    source = part.file(name)
    size = link_file(source, place).stat().st_size
    if size != identity.bytes:
        raise DamagedFileError(
            source,
            f"{size} bytes, expected {identity.bytes}",
            f"Remove {source.parent}, and the build makes this part again.",
        )
    return PlacedFile(place, identity, stored)


def link_file(source: Path, place: Path) -> Path:
    """Make a hard link, or a copy if the file system has none, and return its path.

    With links, the work folder takes no second copy.
    """
    place.parent.mkdir(parents=True, exist_ok=True)
    place.unlink(missing_ok=True)
    try:
        os.link(source, place)
    except OSError:
        shutil.copy2(source, place)
    return place


def move_into_place(staged: Layout, layout: Layout) -> None:
    """Replace a catalog, if there is one, by the one at `staged`, on the same file system.

    Only names change, which needs no space. The manifest goes first and comes last. The files of
    the earlier catalog end up in the folder `old` of `staged`.
    """
    layout.manifest.unlink(missing_ok=True)
    old = staged.root / "old"
    old.mkdir()
    for place in (*(staged.root / name for name in FOLDERS), staged.database, staged.statements):
        before = layout.root / place.name
        if os.path.lexists(before):
            before.replace(old / place.name)
        if place.exists():
            place.replace(before)
    staged.manifest.replace(layout.manifest)
