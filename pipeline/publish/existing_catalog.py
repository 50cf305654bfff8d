"""A finished catalog as the stages of an addition see it.

Its tree, tokenizer, documents and verdicts are presented as parts. Nothing is copied.
"""

import glob
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data_catalog.format import tables
from data_catalog.format.accounts import Account, Tally
from data_catalog.format.files import CatalogFiles
from data_catalog.format.layout import Layout, Levels
from data_catalog.format.manifest import FileIdentity, Manifest, fingerprint
from data_catalog.format.offsets import read_offsets_table
from data_catalog.place import Folder
from pipeline.dedup.targets import KnownTexts
from pipeline.parts import Part, make_part
from pipeline.publish.link_files import link_file
from pipeline.source.documents import text_digest
from pipeline.source.stage import DOCUMENTS_FILE

_COPIES = """
SELECT count(*) FROM target_texts
SEMI JOIN read_parquet($files, hive_partitioning = false) USING (digest)
"""


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

    def compared_targets(self) -> tuple[list[Part], list[Part]]:
        """Return the targets that the table of leakage covers, and the others."""
        parts = [self._folder(self.layout.target(name)) for name in self.manifest.targets]
        covered = {*self.leakage()["name"].to_pylist()}
        return (
            [part for part in parts if part.name in covered],
            [part for part in parts if part.name not in covered],
        )

    def leakage(self) -> pa.Table:
        """Return tables.LEAKAGE. Catalogs of older versions of clustermix have no rows."""
        if self.layout.leakage.relative_to(self.layout.root).as_posix() not in self.manifest.files:
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

    def stored(self, top: int, folder: Folder) -> Part:
        """Return the documents of one top-level domain as a part like those of `shard_part`."""
        offsets = self.offsets()
        in_top = offsets.filter(pc.equal(offsets["top"], top))
        rows, tokens = (pc.sum(in_top[name]).as_py() or 0 for name in ("rows", "tokens"))
        files = {
            f"documents-{number:04d}.parquet": self.layout.documents(top, number)
            for number in sorted(set(in_top["part"].to_pylist()))
        }
        identities = {name: self._identity(file) for name, file in files.items()}

        def make(out: Path) -> Account:
            for name, file in files.items():
                link_file(file, out / name)
            amount = Tally(rows=rows, tokens=tokens)
            return Account(read=amount, kept=amount)

        key = fingerprint("standing", [identity.sha256 for identity in identities.values()])
        return make_part(folder, key, make, identities)

    def known(self, folder: Folder) -> KnownTexts:
        """Return every text of the catalog: its documents and the documents of its targets.

        The digests of the targets' texts are written to `folder`.
        """
        targets = [self.layout.target(name) / DOCUMENTS_FILE for name in self.manifest.targets]

        def make(out: Path) -> Account:
            texts = [pq.read_table(file, columns=["text"])["text"].to_pylist() for file in targets]
            digests = sorted({text_digest(text) for column in texts for text in column})
            table = pa.table({"digest": pa.array(digests, pa.string())})
            pq.write_table(table, out / "digests.parquet")
            return Account()

        key = fingerprint("known", [self._identity(file).sha256 for file in targets])
        part = make_part(folder, key, make)
        files = [self.layout.root / name for name in self.file_names("documents/")]
        return KnownTexts(
            (*files, part.file("digests.parquet")),
            self.manifest.documents,
            self.manifest.fingerprint,
            tuple(targets),
        )

    def file_names(self, folder: str) -> list[str]:
        """Return the names of the manifest's files below `folder`, ascending."""
        return sorted(name for name in self.manifest.files if name.startswith(folder))

    def _folder(self, folder: Path) -> Part:
        names = self.file_names(f"{folder.relative_to(self.layout.root).as_posix()}/")
        hashes = [[name, self.manifest.files[name].sha256] for name in names]
        return Part(folder, fingerprint("standing", hashes), Account(), 0)

    def _identity(self, path: Path) -> FileIdentity:
        return self.manifest.files[path.relative_to(self.layout.root).as_posix()]


def as_read(root: Path, measured: Sequence[str], folder: Path) -> tuple[list[Part], list[Part]]:
    """Return source parts, and the verdicts on each, for all documents a catalog has read.

    The source parts have the columns `source` and `id_int` only.

    Args:
        root: The catalog.
        measured: Names below `root` of files of tables.MEASURED.
        folder: A folder for links to those files.
    """
    parts = [Part(folder / Path(name).stem, name, Account(), 0) for name in measured]
    for part in parts:
        link_file(root / part.fingerprint, part.file(DOCUMENTS_FILE))
    return parts, [Part(root / "verdicts", "verdicts", Account(), 0)] * len(parts)


def copies_in(existing: ExistingCatalog, targets: Sequence[Part]) -> dict[str, int]:
    """Return the number of each new target's texts that are documents of the catalog too.

    Texts are compared word for word. Targets without copies are left out.
    """
    files = [
        glob.escape(str(existing.layout.root / name)) for name in existing.file_names("documents/")
    ]
    copies = {}
    for part in targets:
        texts = pq.read_table(part.file(DOCUMENTS_FILE), columns=["text"])["text"].to_pylist()
        digests = pa.table({"digest": pa.array(sorted(set(map(text_digest, texts))), pa.string())})
        with duckdb.connect() as connection:
            connection.register("target_texts", digests)
            [(count,)] = connection.sql(_COPIES, params={"files": files}).fetchall()
        if count:
            copies[part.name] = count
    return copies
