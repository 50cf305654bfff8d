"""The domains of the catalog that runs were trained on: sizes, terms and distributions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float, Int

from data_catalog.errors import UserError
from data_catalog.format.files import CatalogFiles, open_files
from data_catalog.format.layout import Layout, Levels
from data_catalog.format.manifest import is_inside
from flows.pages.run.run_folder import RunFolder

TERMS_PER_DOMAIN = 6  # of a domain, in the page


@dataclass(frozen=True)
class Domains:
    """All domains of one level; arrays are indexed by domain number, and a domain without documents has zeros."""

    level: int
    levels: Levels
    terms: tuple[tuple[str, ...], ...]
    top_terms: tuple[tuple[str, ...], ...]  # of the top level's domains
    documents: Int[np.ndarray, " domains"]
    leaf_tokens: Int[np.ndarray, " leaves"]  # of the training split
    distributions: Mapping[tuple[str, str], Float[np.ndarray, " domains"]]  # by (name, kind)
    fingerprint: str | None  # of the catalog

    @property
    def tokens(self) -> Int[np.ndarray, " domains"]:
        """Of the training split."""
        return self.leaf_tokens.reshape(self.level, -1).sum(axis=1)

    @property
    def corpus_share(self) -> Float[np.ndarray, " domains"]:
        return self.tokens / max(self.tokens.sum(), 1)

    def distribution(self, name: str, kind: str) -> Float[np.ndarray, " domains"] | None:
        """A stored distribution of this kind, or one that has no kind of its own (natural, uniform)."""
        return next(
            (
                self.distributions[key]
                for key in ((name, kind), (name, name))
                if key in self.distributions
            ),
            None,
        )

    def name(self, domain: int, terms: int = 3) -> str:
        """The domain's number and first terms, e.g. `domain 17 (tensor, gradient, layer)`."""
        return _named(domain, self.terms[domain][:terms])

    def top_name(self, domain: int, terms: int = 3) -> str:
        """The same of a domain of the top level; its number alone where there is no such domain."""
        return _named(
            domain, self.top_terms[domain][:terms] if domain < len(self.top_terms) else ()
        )


def _named(domain: int, terms: Sequence[str]) -> str:
    return f"domain {domain} ({', '.join(terms)})" if terms else f"domain {domain}"


def find_catalog(runs: Sequence[RunFolder]) -> Path | None:
    """The first catalog that a run's config names and that is there."""
    for run in runs:
        named = run.config.get("catalog")
        if isinstance(named, str) and named and _is_there(Path(named)):
            return Path(named)
    return None


def _is_there(root: Path) -> bool:
    try:
        return Layout(root).manifest.is_file()
    except OSError:  # a name that no file can have
        return False


def read_domains(root: Path, runs: Sequence[RunFolder]) -> Domains:
    """Read the catalog at `root`: the version that the runs drew from, if it is still there, at the coarsest level that any of them mixed.

    Raises:
        UserError: a file is missing, unreadable or outside the catalog, or the catalog lacks the level.
    """
    try:
        files = _open_version(root, runs)
        layout = files.layout
        domains, offsets, stored = (
            _read(root, path, columns)
            for path, columns in (
                (layout.domains, ["level", "domain", "documents", "terms"]),
                (layout.offsets, ["leaf", "split", "tokens"]),
                (layout.distributions, ["name", "kind", "level", "domain", "weight"]),
            )
        )
        levels = files.levels
        asked = [run.level for run in runs if run.level is not None] or [levels.leaves]
        level = min((k for k in asked if k in levels.granularities), default=asked[0])
        levels.span(level)  # refuses a level the tree lacks
        here = domains.filter(domains["level"].to_numpy() == level)
        documents = np.zeros(level, np.int64)
        documents[_inside(here["domain"].to_numpy(), level)] = here["documents"].to_numpy()
        train = offsets.filter(offsets["split"].to_numpy(zero_copy_only=False) == "train")
        tokens = np.zeros(levels.leaves, np.int64)
        np.add.at(
            tokens,
            _inside(train["leaf"].to_numpy().astype(np.int64), levels.leaves),
            train["tokens"].to_numpy(),
        )
        top = levels.granularities[0]
        terms, top_terms = (
            _terms(domains.filter(domains["level"].to_numpy() == k), k) for k in (level, top)
        )
        distributions = _distributions(stored, level)
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{root}: expected a finished catalog, found {error}; give the folder that `clustermix build` wrote"
        ) from error
    return Domains(
        level,
        levels,
        terms,
        top_terms,
        documents,
        tokens,
        distributions,
        files.manifest.fingerprint,
    )


def _open_version(root: Path, runs: Sequence[RunFolder]) -> CatalogFiles:
    """Open the newest version that one of the runs was trained on, or else the newest version."""
    newest = open_files(root)
    fingerprints = [run.about.get("catalog") for run in runs]
    for number in range(newest.version, 0, -1):
        files = open_files(root, number)
        if files.manifest.fingerprint in fingerprints:
            return files
    return newest


def _read(root: Path, path: Path, columns: list[str]) -> pa.Table:
    if not is_inside(root, str(path.relative_to(root))):
        raise UserError(f"{path}: lies outside the catalog; build it again, or give another")
    return pq.read_table(path, columns=columns)


def _inside(numbers: Int[np.ndarray, " n"], count: int) -> Int[np.ndarray, " n"]:
    """The same numbers, if all are those of domains or leaves."""
    if len(numbers) and not 0 <= numbers.min() <= numbers.max() < count:
        raise ValueError(f"numbers {numbers.min()} to {numbers.max()} of {count} domains")
    return numbers


def _terms(rows: pa.Table, level: int) -> tuple[tuple[str, ...], ...]:
    terms: list[tuple[str, ...]] = [()] * level
    for domain, words in zip(
        _inside(rows["domain"].to_numpy(), level).tolist(), rows["terms"].to_pylist(), strict=True
    ):
        terms[domain] = tuple(map(str, (words or [])[:TERMS_PER_DOMAIN]))
    return tuple(terms)


def _distributions(
    stored: pa.Table, level: int
) -> dict[tuple[str, str], Float[np.ndarray, " domains"]]:
    found: dict[tuple[str, str], Float[np.ndarray, " domains"]] = {}
    here = stored.filter(stored["level"].to_numpy() == level)
    _inside(here["domain"].to_numpy(), level)
    columns = (here[name].to_pylist() for name in ("name", "kind", "domain", "weight"))
    for name, kind, domain, weight in zip(*columns, strict=True):
        found.setdefault((name, kind), np.zeros(level))[domain] = weight
    return found
