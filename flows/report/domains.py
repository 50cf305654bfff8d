"""The domains of the catalog that runs were trained on: sizes, terms, distributions, and what a run drew of each."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float, Int

from data_catalog.errors import UserError
from data_catalog.layout import Layout, Levels
from flows.report.data import Run

TERMS = 6  # of a domain, in the page


@dataclass(frozen=True)
class Domains:
    """All domains of one level; arrays are indexed by domain number, and a domain without documents has zeros."""

    level: int
    levels: Levels
    terms: tuple[tuple[str, ...], ...]
    documents: Int[np.ndarray, " domains"]
    tokens: Int[np.ndarray, " domains"]  # of the training split
    distributions: dict[tuple[str, str], Float[np.ndarray, " domains"]]  # by (name, kind)
    fingerprint: str | None  # of the catalog

    @property
    def corpus_share(self) -> Float[np.ndarray, " domains"]:
        return self.tokens / max(self.tokens.sum(), 1)

    def distribution(self, name: str, kind: str) -> Float[np.ndarray, " domains"] | None:
        """A stored distribution of this kind, or one that has no kind of its own (natural, uniform)."""
        return next((self.distributions[key] for key in ((name, kind), (name, name)) if key in self.distributions), None)

    def name(self, domain: int, terms: int = 3) -> str:
        """The domain's number and first terms, e.g. `domain 17 (tensor, gradient, layer)`."""
        words = ", ".join(self.terms[domain][:terms])
        return f"domain {domain} ({words})" if words else f"domain {domain}"


def find_catalog(runs: Sequence[Run]) -> Path | None:
    """The first catalog that a run's config names and that is there."""
    for run in runs:
        named = run.config.get("catalog")
        if named and Layout(Path(named)).manifest.is_file():
            return Path(named)
    return None


def read_domains(root: Path, level: int | None) -> Domains:
    """Read one level of the catalog at `root`; None: the finest.

    Raises:
        UserError: a file is missing or unreadable, or the catalog lacks the level.
    """
    layout = Layout(root)
    try:
        domains = pq.read_table(layout.domains, columns=["level", "domain", "documents", "terms"])
        offsets = pq.read_table(layout.offsets, columns=["leaf", "split", "tokens"])
        stored = pq.read_table(layout.distributions)
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{root}: expected a finished catalog, found {error}; give the folder that `clustermix build` wrote") from error
    levels = Levels(tuple(sorted(set(domains["level"].to_pylist()))))
    level = levels.leaves if level is None else level
    levels.span(level)  # refuses a level the tree lacks

    here = domains.filter(domains["level"].to_numpy() == level)
    documents = np.zeros(level, np.int64)
    documents[here["domain"].to_numpy()] = here["documents"].to_numpy()
    terms: list[tuple[str, ...]] = [()] * level
    for domain, words in zip(here["domain"].to_pylist(), here["terms"].to_pylist(), strict=True):
        terms[domain] = tuple((words or [])[:TERMS])

    train = offsets.filter(offsets["split"].to_numpy(zero_copy_only=False) == "train")
    leaves = train["leaf"].to_numpy().astype(np.int64)
    tokens = np.zeros(level, np.int64)
    np.add.at(tokens, levels.domains(leaves, level), train["tokens"].to_numpy())
    return Domains(level, levels, tuple(terms), documents, tokens, _distributions(stored, level), _fingerprint(layout.manifest))


def _distributions(stored: pa.Table, level: int) -> dict[tuple[str, str], Float[np.ndarray, " domains"]]:
    found: dict[tuple[str, str], Float[np.ndarray, " domains"]] = {}
    here = stored.filter(stored["level"].to_numpy() == level)
    columns = (here[name].to_pylist() for name in ("name", "kind", "domain", "weight"))
    for name, kind, domain, weight in zip(*columns, strict=True):
        found.setdefault((name, kind), np.zeros(level))[domain] = weight
    return found


def _fingerprint(manifest: Path) -> str | None:
    try:
        found = json.loads(manifest.read_text(encoding="utf-8")).get("fingerprint")
    except (OSError, ValueError, AttributeError):
        return None  # the tables are enough for a report
    return str(found) if found else None


def drawn(run: Run, domains: Domains) -> tuple[Float[np.ndarray, " domains"], Float[np.ndarray, " domains"]] | None:
    """Share of the run's sequences that each domain gave, and how often each of its sequences was used; None while running.

    Raises:
        UserError: the run drew from leaves that this catalog does not have.
    """
    if run.usage is None:
        return None
    if len(run.usage.leaf) and run.usage.leaf.max() >= domains.levels.leaves:
        found, leaves = int(run.usage.leaf.max()), domains.levels.leaves
        raise UserError(f"{run.folder}: drew from leaf {found}, this catalog has {leaves} leaves; give the catalog the run was trained on")
    sums = np.zeros((2, domains.level))
    for row, values in zip(sums, (run.usage.drawn, run.usage.sequences), strict=True):
        np.add.at(row, domains.levels.domains(run.usage.leaf, domains.level), values)
    return sums[0] / max(sums[0].sum(), 1.0), sums[0] / np.maximum(sums[1], 1.0)


def basis_domains(run: Run, domains: Domains) -> Float[np.ndarray, "basis domains"] | None:
    """What share of each domain every basis member stands for; None where the catalog does not say."""
    mixture = run.config.get("mixture") or {}
    rows = []
    for i, name in enumerate(run.basis):
        if mixture.get("basis") == "domains" and run.mixer == "dga" and run.about.get("level") == domains.level:
            number = domain_number(name, i)
            row = np.eye(1, domains.level, number)[0] if number < domains.level else None
        else:
            row = domains.distribution(name, str(mixture.get("kind", "hard")))
        if row is None:
            return None
        rows.append(row)
    return np.array(rows) if rows else None


def domain_number(name: str, position: int) -> int:
    """The domain that a basis member of domain mode is: the number its name ends in, else its place in the basis."""
    digits = name[len(name.rstrip("0123456789")) :]
    return int(digits) if digits.isascii() and digits else position


def final_mix(run: Run, domains: Domains) -> Float[np.ndarray, " domains"] | None:
    """Share of each domain in the mixture that the run sampled last."""
    rows = basis_domains(run, domains)
    return None if rows is None or run.weights is None else run.weights.sampling[-1] @ rows
