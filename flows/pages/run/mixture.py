"""From a run's weights to domains: what a mixture of basis members leads to, and what a run drew of each domain."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from flows.pages.run.domains import Domains
from flows.pages.run.run_folder import RunFolder
from trainer.config import LEARNING


@dataclass(frozen=True)
class DrawnDomains:
    """What a run has drawn of every domain."""

    share: Float[np.ndarray, " domains"]  # of the run's tokens
    epochs: Float[np.ndarray, " domains"]  # drawn tokens over those that were there to draw
    unseen: Float[np.ndarray, " domains"]  # tokens that were there to draw and were not
    expected: bool  # reckoned from the weight log, as the run has not written what it drew


def is_over_domains(run: RunFolder) -> bool:
    """Whether each member of the run's basis is one domain of the level it mixes at, and its name the domain's number."""
    if not run.basis or not all(
        name.isascii() and name.isdecimal() and len(name) < 10 for name in run.basis
    ):
        return False
    return run.mixer == "replay" or (
        run.mixer in LEARNING and run.setting("mixture", "basis") == "domains"
    )


def member_label(run: RunFolder, member: int, domains: Domains | None) -> str:
    """A basis member's name; where it is a domain that the catalog knows, with the domain's first terms."""
    name = run.basis[member]
    if domains is None or not is_over_domains(run):
        return name
    return (
        domains.name(int(name))
        if run.level == domains.level and int(name) < domains.level
        else f"domain {name}"
    )


def mixed(
    run: RunFolder, sampling: Float[np.ndarray, "stages basis"], domains: Domains
) -> Float[np.ndarray, "stages domains"] | None:
    """The share of each domain that weights on the run's basis ask for; None where the catalog does not say."""
    if is_over_domains(run):
        level = run.level or 0
        numbers = np.array([int(name) for name in run.basis])
        if (
            level not in domains.levels.granularities
            or level < domains.level
            or (len(numbers) and numbers.max() >= level)
        ):
            return None
        found = np.zeros((len(sampling), domains.level))
        np.add.at(found.T, numbers // (level // domains.level), sampling.T)
        return found
    kind = str(run.setting("mixture", "kind") or "hard")
    rows = [domains.distribution(name, kind) for name in run.basis]
    known = [row for row in rows if row is not None]
    return sampling @ np.stack(known) if known and len(known) == len(rows) else None


def led_by(run: RunFolder, domain: int, domains: Domains) -> Float[np.ndarray, " basis"]:
    """Each member's part in the share of one domain that the run sampled last; sums to 1."""
    if run.weights is None:
        return np.zeros(0)
    kind = str(run.setting("mixture", "kind") or "hard")
    rows = [domains.distribution(name, kind) for name in run.basis]
    parts = run.weights.sampling[-1] * np.array(
        [0.0 if row is None else row[domain] for row in rows]
    )
    total = parts.sum()
    return parts / total if total > 0 else parts


def drawn_domains(run: RunFolder, domains: Domains) -> DrawnDomains | None:
    """What the run has drawn; while it runs, what its weights ask for. None if neither is known, or the catalog is another one."""
    length = run.count("training", "sequence_tokens") or 1
    if run.usage is None:
        return _expected(run, domains)
    if len(run.usage.leaf) and run.usage.leaf.max() >= domains.levels.leaves:
        return None
    leaves = domains.levels.domains(run.usage.leaf, domains.level)
    taken, there, left = np.zeros((3, domains.level))
    np.add.at(taken, leaves, run.usage.drawn)
    np.add.at(there, leaves, run.usage.sequences)
    np.add.at(left, leaves, np.maximum(run.usage.sequences - run.usage.drawn, 0))
    return DrawnDomains(
        taken / max(taken.sum(), 1.0), taken / np.maximum(there, 1.0), left * length, expected=False
    )


def _expected(run: RunFolder, domains: Domains) -> DrawnDomains | None:
    """Bounds are not counted in: what they keep from one domain, others give."""
    steps = run.progress()[0]
    batch, length, most = (
        run.count("training", key) for key in ("batch_sequences", "sequence_tokens", "steps")
    )
    wanted = None if run.weights is None else mixed(run, run.weights.sampling, domains)
    if wanted is None or run.weights is None or not batch or not length or steps[-1] == 0:
        return None
    so_far = min(steps[-1], most or steps[-1]) * batch
    ends = np.append(run.weights.first_sequence[1:], so_far)
    draws = np.clip(ends, None, so_far) - np.clip(run.weights.first_sequence, None, so_far)
    taken = (draws[:, None] * wanted).sum(axis=0) * length
    there = _there(run, domains)
    return DrawnDomains(
        taken / max(taken.sum(), 1.0),
        taken / np.maximum(there, length),
        np.maximum(there - taken, 0.0),
        expected=True,
    )


def _there(run: RunFolder, domains: Domains) -> Float[np.ndarray, " domains"]:
    """Tokens of each domain that are there to draw, the scarce-data setting counted in."""
    level = run.level if run.level in domains.levels.granularities else domains.level
    inside = domains.leaf_tokens.reshape(level, -1).sum(axis=1)
    most = run.count("data", "tokens_per_domain")
    if most is not None:
        inside = np.minimum(inside, most)
    return inside.reshape(domains.level, -1).sum(axis=1).astype(float)
