"""Domains of the catalog that runs were trained on: sizes, terms and distributions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from jaxtyping import Float, Int

from data_catalog.errors import UserError
from data_catalog.format import tables
from data_catalog.format.distributions import read_distributions
from data_catalog.format.files import CatalogFiles, open_files
from data_catalog.format.layout import Layout, Levels
from data_catalog.format.offsets import read_offsets_table
from flows.pages.run.run_folder import RunFolder

TERMS_PER_DOMAIN = 6


@dataclass(frozen=True)
class Domains:
    """All domains of one level. Arrays are indexed by domain number and 0 for empty domains."""

    level: int
    levels: Levels
    terms: tuple[tuple[str, ...], ...]
    top_terms: tuple[tuple[str, ...], ...]  # of the domains of the coarsest level
    documents: Int[np.ndarray, " domains"]
    leaf_tokens: Int[np.ndarray, " leaves"]  # in the training split
    distributions: Mapping[tuple[str, str], Float[np.ndarray, " domains"]]  # by (name, kind)
    fingerprint: str | None  # of the catalog

    @property
    def tokens(self) -> Int[np.ndarray, " domains"]:
        """Tokens per domain in the training split."""
        return self.leaf_tokens.reshape(self.level, -1).sum(axis=1)

    @property
    def corpus_share(self) -> Float[np.ndarray, " domains"]:
        """Share of each domain in the tokens of the training split."""
        return self.tokens / max(self.tokens.sum(), 1)

    def distribution(self, name: str, kind: str) -> Float[np.ndarray, " domains"] | None:
        """Return a stored distribution, or None. Natural and uniform have no separate kinds."""
        return next(
            (
                self.distributions[key]
                for key in ((name, kind), (name, name))
                if key in self.distributions
            ),
            None,
        )

    def name(self, domain: int, terms: int = 3) -> str:
        """Return the number and first terms, e.g. `domain 17 (tensor, gradient, layer)`."""
        return _named(domain, self.terms[domain][:terms])

    def top_name(self, domain: int, terms: int = 3) -> str:
        """Return the same for a domain of the coarsest level. Unknown domains have no terms."""
        return _named(
            domain, self.top_terms[domain][:terms] if domain < len(self.top_terms) else ()
        )


def _named(domain: int, terms: Sequence[str]) -> str:
    return f"domain {domain} ({', '.join(terms)})" if terms else f"domain {domain}"


def find_catalog(runs: Sequence[RunFolder]) -> Path | None:
    """Return the first existing catalog that the config of a run names."""
    for run in runs:
        value = run.config.get("catalog")
        if isinstance(value, str) and value and _is_catalog(Path(value)):
            return Path(value)
    return None


def _is_catalog(root: Path) -> bool:
    try:
        return Layout(root).manifest.is_file()
    except OSError:  # not a valid file name
        return False


def read_domains(root: Path, runs: Sequence[RunFolder]) -> Domains:
    """Read the domains of a catalog at the coarsest level that any of the runs used.

    Reads the version that the runs were trained on if it still exists, else the newest one.

    Args:
        root: Folder of the catalog.
        runs: Runs on this catalog.

    Raises:
        UserError: A file is missing, damaged or outside the catalog, or the level is missing.
    """
    try:
        files = _open_version(root, runs)
        layout = files.layout
        columns = ["level", "domain", "documents", "terms"]
        domains = files.read_table(layout.domains, tables.DOMAINS, columns)
        offsets = read_offsets_table(files, ["leaf", "split", "tokens"])
        stored = read_distributions(files)
        levels = files.levels
        asked = [run.level for run in runs if run.level is not None] or [levels.leaves]
        level = min((k for k in asked if k in levels.granularities), default=asked[0])
        levels.span(level)  # raises if the tree lacks the level
        here = domains.filter(domains["level"].to_numpy() == level)
        documents = np.zeros(level, np.int64)
        documents[_checked_range(here["domain"].to_numpy(), level)] = here["documents"].to_numpy()
        train = offsets.filter(offsets["split"].to_numpy(zero_copy_only=False) == "train")
        tokens = np.zeros(levels.leaves, np.int64)
        np.add.at(
            tokens,
            _checked_range(train["leaf"].to_numpy().astype(np.int64), levels.leaves),
            train["tokens"].to_numpy(),
        )
        top = levels.granularities[0]
        terms, top_terms = (
            _terms(domains.filter(domains["level"].to_numpy() == k), k) for k in (level, top)
        )
        distributions = _distributions(stored, level)
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{root}: cannot be read ({error}). Give the folder of a finished catalog, or check it "
            "with `clustermix verify`."
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


def _checked_range(numbers: Int[np.ndarray, " n"], count: int) -> Int[np.ndarray, " n"]:
    """Return the numbers of domains or leaves after checking their range."""
    if len(numbers) and not 0 <= numbers.min() <= numbers.max() < count:
        raise ValueError(
            f"found domain numbers {numbers.min()} to {numbers.max()}, expected 0 to {count - 1}"
        )
    return numbers


def _terms(rows: pa.Table, level: int) -> tuple[tuple[str, ...], ...]:
    terms: list[tuple[str, ...]] = [()] * level
    for domain, words in zip(
        _checked_range(rows["domain"].to_numpy(), level).tolist(),
        rows["terms"].to_pylist(),
        strict=True,
    ):
        terms[domain] = tuple(map(str, (words or [])[:TERMS_PER_DOMAIN]))
    return tuple(terms)


def _distributions(
    stored: pa.Table, level: int
) -> dict[tuple[str, str], Float[np.ndarray, " domains"]]:
    found: dict[tuple[str, str], Float[np.ndarray, " domains"]] = {}
    here = stored.filter(stored["level"].to_numpy() == level)
    _checked_range(here["domain"].to_numpy(), level)
    columns = (here[name].to_pylist() for name in ("name", "kind", "domain", "weight"))
    for name, kind, domain, weight in zip(*columns, strict=True):
        found.setdefault((name, kind), np.zeros(level))[domain] = weight
    return found
