"""A finished catalog as the stages of an addition see it.

Its tree, tokenizer, documents and verdicts are presented as standing parts. Nothing is copied.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data_catalog.format import tables
from data_catalog.format.accounts import Account, Tally
from data_catalog.format.files import CatalogFiles
from data_catalog.format.layout import Layout, Levels
from data_catalog.format.manifest import Manifest, fingerprint
from data_catalog.format.offsets import read_offsets_table
from data_catalog.place import Folder, Place
from pipeline.dedup.targets import DIGESTS_FILE, KnownTexts
from pipeline.parts import Part, StandingFile, make_part
from pipeline.publish.put_files import check_sizes
from pipeline.source.documents import text_digest
from pipeline.source.stage import DOCUMENTS_FILE


@dataclass(frozen=True)
class ExistingCatalog:
    """One version of a catalog."""

    files: CatalogFiles

    @property
    def layout(self) -> Layout:
        return self.files.layout

    @property
    def manifest(self) -> Manifest:
        return self.files.manifest

    @property
    def levels(self) -> Levels:
        return self.files.levels

    @property
    def tree(self) -> Part:
        return self._folder(self.layout.tree)

    @property
    def tokenizer(self) -> Part:
        return self._folder(self.layout.tokenizer)

    def targets(self) -> list[Part]:
        """Return the targets as parts like those of `target_part`."""
        return [self._folder(self.layout.target(name)) for name in self.manifest.targets]

    def compared_targets(self) -> tuple[list[Part], list[Part]]:
        """Return the targets that the table of leakage covers, and the others."""
        parts = self.targets()
        covered = {*self.leakage()["name"].to_pylist()}
        return (
            [part for part in parts if part.name in covered],
            [part for part in parts if part.name not in covered],
        )

    def leakage(self) -> pa.Table:
        """Return tables.LEAKAGE. Catalogs of older versions of clustermix have no rows."""
        if self._name(self.layout.leakage) not in self.manifest.files:
            return tables.LEAKAGE.empty_table()
        return self.files.read_table(self.layout.leakage, tables.LEAKAGE)

    def offsets(self) -> pa.Table:
        """Return the offsets of all documents (tables.OFFSETS)."""
        return read_offsets_table(self.files)

    def next_number(self, top: int) -> int:
        """Return the first file number that is free in this top-level domain.

        Files of an addition that never finished are not in the manifest and are overwritten.
        """
        names = self.file_names(f"documents/top={top:04d}/")
        return max((int(Path(name).stem.rpartition("-")[2]) for name in names), default=-1) + 1

    def stored(self, top: int) -> Part:
        """Return the documents of one top-level domain as a part like those of `shard_part`."""
        offsets = self.offsets()
        in_top = offsets.filter(pc.equal(offsets["top"], top))
        rows, tokens = (pc.sum(in_top[name]).as_py() or 0 for name in ("rows", "tokens"))
        files = {
            f"documents-{number:04d}.parquet": self._file(
                self._name(self.layout.documents(top, number))
            )
            for number in sorted(set(in_top["part"].to_pylist()))
        }
        amount = Tally(rows=rows, tokens=tokens)
        return Part(
            self.files.address / "documents" / f"top={top:04d}",
            fingerprint("standing", [file.identity.sha256 for file in files.values()]),
            Account(read=amount, kept=amount),
            0,
            files,
        )

    def known(self, folder: Folder) -> KnownTexts:
        """Return every text of the catalog: its documents and the documents of its targets.

        The digests of the targets' texts are written to `folder`.
        """
        targets = self.targets()

        def make(out: Path) -> Account:
            digests = {text_digest(text) for part in targets for text in _texts(part)}
            table = pa.table({"digest": pa.array(sorted(digests), pa.string())})
            pq.write_table(table, out / DIGESTS_FILE)
            return Account()

        documents = [part.files()[DOCUMENTS_FILE].sha256 for part in targets]
        part = make_part(folder, fingerprint("known", documents), make)
        return KnownTexts(
            (*self.documents(), part),
            self.manifest.documents,
            self.manifest.fingerprint,
            tuple(targets),
        )

    def check(self) -> None:
        """Check that the files are there before any work starts.

        On a disk, their checksums are compared. In a store only the sizes are, because a checksum
        is compared whenever a file is downloaded.

        Raises:
            DamagedFileError: A file is missing, or differs.
        """
        if isinstance(address := self.files.address, Place):
            check_sizes(address, self.manifest.files)
        else:
            self.files.verified.compare(self.manifest.files)

    def documents(self) -> list[Part]:
        """Return each file of documents as a part that has it as `DIGESTS_FILE`."""
        return [
            _one_file(self.files.address / name, DIGESTS_FILE, self._file(name))
            for name in self.file_names("documents/")
        ]

    def measured(self) -> dict[str, StandingFile]:
        """Return the files of signals and verdicts by their names."""
        names = (*self.file_names("signals/"), *self.file_names("verdicts/"))
        return {name: self._file(name) for name in names}

    def file_names(self, folder: str) -> list[str]:
        """Return the names of the manifest's files below `folder`, ascending."""
        return sorted(name for name in self.manifest.files if name.startswith(folder))

    def _folder(self, folder: Path) -> Part:
        """Return a folder of the catalog as a part."""
        place = self._name(folder)
        files = {name: self._file(name) for name in self.file_names(f"{place}/")}
        hashes = [[name, file.identity.sha256] for name, file in files.items()]
        named = {name.removeprefix(f"{place}/"): file for name, file in files.items()}
        key = fingerprint("standing", hashes)
        return Part(self.files.address / place, key, Account(), 0, named)

    def _file(self, name: str) -> StandingFile:
        """Return a file of the manifest where it is."""
        return StandingFile(self.files.address / name, self.manifest.files[name])

    def _name(self, path: Path) -> str:
        """Return the name in the manifest of a path of `layout`."""
        return path.relative_to(self.layout.root).as_posix()


def as_read(root: Folder, measured: Mapping[str, StandingFile]) -> tuple[list[Part], list[Part]]:
    """Return source parts, and the verdicts on each, for all documents a catalog has read.

    The source parts have the columns `source` and `id_int` only.

    Args:
        root: The catalog.
        measured: Files of signals (tables.MEASURED) and of verdicts by their path below `root`.
    """
    files = [Path(name).name for name in measured if name.startswith("signals/")]
    signals, verdicts = root / "signals", root / "verdicts"
    return (
        [
            _one_file(signals / Path(file).stem, DOCUMENTS_FILE, measured[f"signals/{file}"])
            for file in files
        ],
        [_one_file(verdicts / file, file, measured[f"verdicts/{file}"]) for file in files],
    )


def copies_in(existing: ExistingCatalog, targets: Sequence[Part]) -> dict[str, int]:
    """Return the number of each new target's texts that are documents of the catalog too.

    Texts are compared word for word. Targets without copies are left out.
    """
    texts = {part.name: {*map(text_digest, _texts(part))} for part in targets}
    wanted = pa.array(sorted({*chain(*texts.values())}), pa.string())
    found: set[str] = set()
    for part in existing.documents() if len(wanted) else ():
        digests = pq.read_table(part.readable(DIGESTS_FILE), columns=["digest"])["digest"]
        found.update(digests.filter(pc.is_in(digests, value_set=wanted)).to_pylist())
    copies = {name: len(digests & found) for name, digests in texts.items()}
    return {name: count for name, count in copies.items() if count}


def _one_file(place: Folder, name: str, file: StandingFile) -> Part:
    """Return a part that has one file of a catalog under the name that a stage reads."""
    return Part(place, file.identity.sha256, Account(), 0, {name: file})


def _texts(part: Part) -> list[str]:
    """Return the texts of a target."""
    table = pq.read_table(part.file(DOCUMENTS_FILE), columns=["text"])
    return list(table["text"].to_pylist())
