"""A finished catalog, as the stages of an addition see it: its tree, tokenizer, documents and verdicts as parts. Nothing is copied."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data_catalog.format import tables
from data_catalog.format.accounts import Account, Tally
from data_catalog.format.files import CatalogFiles
from data_catalog.format.layout import Layout, Levels
from data_catalog.format.manifest import Manifest, fingerprint
from pipeline.dedup.exact import Known
from pipeline.parts import Part, make_part
from pipeline.publish.link_files import link
from pipeline.source.documents import text_digest
from pipeline.source.stage import DOCUMENTS

IN_CATALOG = "dedup.catalog"  # the reason of a document whose text is in the catalog already, as a document or in a target


@dataclass(frozen=True)
class Standing:
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

    def offsets(self) -> pa.Table:
        return pq.read_table(self.layout.offsets, schema=tables.OFFSETS)

    def next_part(self, top: int) -> int:
        """The first number that no file of this top-level domain has. A file of an addition that never finished is written over."""
        return (
            max(
                (int(Path(name).stem[-4:]) for name in self.data(f"documents/top={top:04d}/")),
                default=-1,
            )
            + 1
        )

    def stored(self, top: int, folder: Path) -> Part:
        """The documents of one top-level domain, as `shard_part` leaves them."""
        offsets = self.offsets()
        mine = offsets.filter(pc.equal(offsets["top"], top))
        rows, tokens = (pc.sum(mine[name]).as_py() or 0 for name in ("rows", "tokens"))
        files = {
            number: self.layout.documents(top, number)
            for number in sorted(set(mine["part"].to_pylist()))
        }

        def make(out: Path) -> Account:
            for number, file in files.items():
                link(file, out / f"documents-{number:04d}.parquet")
            amount = Tally(rows=rows, tokens=tokens)
            return Account(read=amount, kept=amount)

        return make_part(
            folder, fingerprint("standing", [self._sha256(file) for file in files.values()]), make
        )

    def known(self, folder: Path) -> Known:
        """Every text that is in the catalog: its documents' digests, and those of its targets, which are written to `folder`."""
        names = self.manifest.targets

        def make(out: Path) -> Account:
            texts = [
                pq.read_table(self.layout.target(name) / DOCUMENTS, columns=["text"])[
                    "text"
                ].to_pylist()
                for name in names
            ]
            digests = sorted({text_digest(text) for column in texts for text in column})
            pq.write_table(
                pa.table({"digest": pa.array(digests, pa.string())}), out / "digests.parquet"
            )
            return Account()

        part = make_part(
            folder,
            fingerprint(
                "known", [self._sha256(self.layout.target(name) / DOCUMENTS) for name in names]
            ),
            make,
        )
        files = [self.layout.root / name for name in self.data("documents/")]
        return Known(
            IN_CATALOG, (*files, part.folder / "digests.parquet"), self.manifest.fingerprint
        )

    def data(self, folder: str) -> list[str]:
        """Names of the manifest's files below a folder."""
        return sorted(name for name in self.manifest.files if name.startswith(folder))

    def _folder(self, folder: Path) -> Part:
        names = self.data(f"{folder.name}/")
        return Part(
            folder,
            fingerprint("standing", [[name, self.manifest.files[name].sha256] for name in names]),
            Account(),
            0,
        )

    def _sha256(self, path: Path) -> str:
        return self.manifest.files[path.relative_to(self.layout.root).as_posix()].sha256


def as_read(root: Path, measured: Sequence[str], folder: Path) -> tuple[list[Part], Part]:
    """Source parts (of their columns, `source` and `id_int` alone) and the verdicts on them, of all documents that a catalog has read.

    `measured`: files of tables.MEASURED below `root`; `folder`: for links to them.
    """
    parts = [Part(folder / Path(name).stem, name, Account(), 0) for name in measured]
    for part in parts:
        link(root / part.fingerprint, part.folder / DOCUMENTS)
    return parts, Part(root / "verdicts", "verdicts", Account(), 0)


def copies_in(standing: Standing, targets: Sequence[Part]) -> dict[str, int]:
    """How many documents of each new target are, word for word, documents of the catalog too."""
    import duckdb  # noqa: PLC0415

    files = [str(standing.layout.root / name) for name in standing.data("documents/")]
    found = {}
    for part in targets:
        texts = pq.read_table(part.folder / DOCUMENTS, columns=["text"])["text"].to_pylist()
        digests = pa.table({"digest": pa.array(sorted(set(map(text_digest, texts))), pa.string())})
        with duckdb.connect() as connection:
            connection.register("mine", digests)
            query = "SELECT count(*) FROM mine SEMI JOIN read_parquet($files, hive_partitioning = false) USING (digest)"
            [(count,)] = connection.sql(query, params={"files": files}).fetchall()
        if count:
            found[part.name] = count
    return found
