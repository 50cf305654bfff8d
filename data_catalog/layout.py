"""Where things are in a catalog, and the arithmetic of its one tree."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int

from data_catalog.errors import UserError


@dataclass(frozen=True)
class Levels:
    """Granularities of one nested tree, coarse to fine, e.g. `(64, 4096)`; each divides the next.

    A leaf's number is a prefix code: at granularity k a document's domain is `leaf // (leaves // k)`.
    """

    granularities: tuple[int, ...]

    def __post_init__(self) -> None:
        pairs = zip((1, *self.granularities), self.granularities, strict=False)
        if not self.granularities or any(fine <= coarse or fine % coarse for coarse, fine in pairs):
            raise UserError(f"granularities {list(self.granularities)}: expected growing numbers, each dividing the next, e.g. [64, 4096]")

    @property
    def leaves(self) -> int:
        return self.granularities[-1]

    def span(self, granularity: int) -> int:
        """How many leaves one domain of this granularity holds.

        Raises:
            UserError: the tree has no such level.
        """
        if granularity not in self.granularities:
            raise UserError(f"level {granularity}: this catalog has levels {list(self.granularities)}")
        return self.leaves // granularity

    def domains(self, leaves: Int[np.ndarray, " n"], granularity: int) -> Int[np.ndarray, " n"]:
        return leaves // self.span(granularity)


@dataclass(frozen=True)
class Layout:
    """Paths of a catalog's files."""

    root: Path

    @property
    def manifest(self) -> Path:
        return self.root / "catalog.json"

    @property
    def database(self) -> Path:
        return self.root / "catalog.duckdb"

    @property
    def offsets(self) -> Path:
        return self.root / "offsets.parquet"

    @property
    def domains(self) -> Path:
        return self.root / "domains.parquet"

    @property
    def distributions(self) -> Path:
        return self.root / "distributions.parquet"

    @property
    def accounting(self) -> Path:
        return self.root / "accounting.parquet"

    @property
    def quarantine(self) -> Path:
        return self.root / "quarantine" / "quarantine.parquet"

    @property
    def centroids(self) -> Path:
        return self.root / "centroids.npz"

    @property
    def tokenizer(self) -> Path:
        return self.root / "tokenizer"

    @property
    def work(self) -> Path:
        return self.root / "work"

    def documents(self, top: int) -> Path:
        return self.root / "documents" / f"top={top:04d}" / "part-0000.parquet"

    def tokens(self, top: int) -> Path:
        return self.root / "tokens" / f"top={top:04d}.arrow"

    def target(self, name: str) -> Path:
        return self.root / "targets" / name

    def result_files(self) -> list[Path]:
        """Every file that is part of the catalog's content: not the work folder, the views, or the manifest itself."""
        skip = {self.manifest, self.database}
        return [
            path
            for path in sorted(self.root.rglob("*"))
            if path.is_file() and path not in skip and self.work not in path.parents and not path.name.startswith(".")
        ]
