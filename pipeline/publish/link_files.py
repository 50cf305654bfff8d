"""Put finished parts' files in their places in a catalog.

Data files are placed once and never changed.
"""

import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from data_catalog.format.layout import FOLDERS, Layout
from data_catalog.format.target_record import TARGET_RECORD
from pipeline.parts import SIDECAR, Part
from pipeline.quality.stage import SIGNALS_FILE
from pipeline.shard.stage import document_files, token_files

_OF_A_TARGET = ("documents.parquet", "tokens.arrow", TARGET_RECORD)


def place_stored(stored: Sequence[Part], layout: Layout) -> Iterator[Path]:
    """Place documents and tokens. `stored` has one part per top-level domain."""
    for top, part in enumerate(stored):
        for file in document_files(part):
            yield link_file(file, layout.documents(top, int(file.stem.rpartition("-")[2])))
        for file in token_files(part):
            yield link_file(file, layout.tokens(top, int(file.stem.rpartition("-")[2])))


def place_verdicts(
    judged: Sequence[Part], verdicts: Sequence[Part], layout: Layout
) -> Iterator[Path]:
    """Place the signals of every document read and the final verdicts on them.

    The rows of the two agree, file by file. `verdicts` has the part with the final verdicts for
    each part of `judged`.
    """
    for part, final in zip(judged, verdicts, strict=True):
        if (part.folder / SIGNALS_FILE).is_file():
            yield link_file(part.folder / SIGNALS_FILE, layout.signals(part.name))
            yield link_file(final.folder / f"{part.name}.parquet", layout.verdicts(part.name))


def place_targets(targets: Sequence[Part], layout: Layout) -> Iterator[Path]:
    for part in targets:
        for name in _OF_A_TARGET:
            yield link_file(part.folder / name, layout.target(part.name) / name)


def place_all(part: Part, folder: Path) -> Iterator[Path]:
    """Place every file of a part except its sidecar."""
    for file in sorted(part.folder.rglob("*")):
        if file.is_file() and file.name != SIDECAR:
            yield link_file(file, folder / file.relative_to(part.folder))


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
