"""Paths of the files of a catalog, and the numbering of its tree."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Integer

from data_catalog.errors import UserError

MANIFEST = "catalog.json"
OPTIONAL = ("documents", "tokens", "signals", "verdicts")  # folders a fetched copy may lack
FOLDERS = (*OPTIONAL, "targets", "tree", "tokenizer", "versions")
WORK = "work"  # folder of a build's parts
LEAKAGE_FILE = "leakage.parquet"  # in the folder of a version
CENTROIDS = "centroids.npz"  # in the folder `tree`, one array per level, named by its granularity


@dataclass(frozen=True)
class Levels:
    """Granularities of a nested tree, coarse to fine, such as `(64, 4096)`. Each divides the next.

    Leaf numbers are prefix codes: the domain at granularity k is `leaf // (leaves // k)`.
    """

    granularities: tuple[int, ...]

    def __post_init__(self) -> None:
        if 1 in self.granularities:
            raise UserError(
                f"granularities {list(self.granularities)}: a level needs at least 2 domains."
            )
        pairs = zip((1, *self.granularities), self.granularities, strict=False)
        if not self.granularities or any(fine <= coarse or fine % coarse for coarse, fine in pairs):
            raise UserError(
                f"granularities {list(self.granularities)}: expected increasing numbers, each "
                "dividing the next, such as [64, 4096]."
            )

    @property
    def leaves(self) -> int:
        return self.granularities[-1]

    def span(self, granularity: int) -> int:
        """Return the number of leaves per domain of this granularity.

        Raises:
            UserError: The tree has no such level.
        """
        if granularity not in self.granularities:
            raise UserError(
                f"level {granularity}: not a level of this catalog. "
                f"Expected one of {list(self.granularities)}."
            )
        return self.leaves // granularity

    def domains(
        self, leaves: Integer[np.ndarray, " n"], granularity: int
    ) -> Integer[np.ndarray, " n"]:
        return leaves // self.span(granularity)


@dataclass(frozen=True)
class Layout:
    """Paths of a catalog's files.

    Documents, tokens, targets, the tree and the tokenizer are written once. The small tables that
    change with each version are in a folder per version, with the manifest of that version.
    `catalog.json` is a copy of the newest manifest.
    """

    root: Path
    version: int = 1

    @property
    def tables(self) -> Path:
        """The folder of this version's tables."""
        return self.root / "versions" / f"{self.version:04d}"

    @property
    def manifest(self) -> Path:
        return self.root / MANIFEST

    @property
    def version_manifest(self) -> Path:
        return self.tables / MANIFEST

    @property
    def database(self) -> Path:
        return self.root / "catalog.duckdb"

    @property
    def statements(self) -> Path:
        """The SQL script with the same views and macros as `database`."""
        return self.root / "catalog.sql"

    @property
    def offsets(self) -> Path:
        return self.tables / "offsets.parquet"

    @property
    def domains(self) -> Path:
        return self.tables / "domains.parquet"

    @property
    def distributions(self) -> Path:
        return self.tables / "distributions.parquet"

    @property
    def accounting(self) -> Path:
        return self.tables / "accounting.parquet"

    @property
    def quarantine(self) -> Path:
        return self.tables / "quarantine.parquet"

    @property
    def targets(self) -> Path:
        return self.tables / "targets.parquet"

    @property
    def leakage(self) -> Path:
        """The table that catalogs of older versions of clustermix lack."""
        return self.tables / LEAKAGE_FILE

    @property
    def removed(self) -> Path:
        return self.tables / "removed.parquet"

    @property
    def tree(self) -> Path:
        return self.root / "tree"

    @property
    def tokenizer(self) -> Path:
        return self.root / "tokenizer"

    @property
    def work(self) -> Path:
        return self.root / WORK

    def documents(self, top: int, part: int = 0) -> Path:
        return self.root / "documents" / f"top={top:04d}" / f"part-{part:04d}.parquet"

    def tokens(self, top: int, part: int = 0) -> Path:
        return self.root / "tokens" / f"top={top:04d}" / f"part-{part:04d}.arrow"

    def signals(self, part: str) -> Path:
        """Return the file of signals of a source part that this version read."""
        return self.root / "signals" / f"{self.tables.name}-{part}.parquet"

    def verdicts(self, part: str) -> Path:
        """Return the file of verdicts on a source part, with the same rows as `signals`."""
        return self.root / "verdicts" / f"{self.tables.name}-{part}.parquet"

    def target(self, name: str) -> Path:
        return self.root / "targets" / name
