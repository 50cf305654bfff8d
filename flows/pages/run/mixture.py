"""Shares of domains: in a mixture of basis members, and in what a run has sampled."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from flows.pages.run.domains import Domains
from flows.pages.run.run_folder import RunFolder
from trainer.mixture_config import LEARNING


@dataclass(frozen=True)
class DrawnDomains:
    """Numbers on what a run has sampled from every domain."""

    share: Float[np.ndarray, " domains"]  # of the sampled tokens
    epochs: Float[np.ndarray, " domains"]  # sampled tokens divided by available tokens
    unseen: Float[np.ndarray, " domains"]  # available tokens that were never sampled
    expected: bool  # estimated from the weight log, because the run is not finished


def is_over_domains(run: RunFolder) -> bool:
    """Return whether each basis member is one domain, with the domain number as its name."""
    if not run.basis or not all(
        name.isascii() and name.isdecimal() and len(name) < 10 for name in run.basis
    ):
        return False
    return run.mixer == "replay" or (
        run.mixer in LEARNING and run.setting("mixture", "basis") == "domains"
    )


def member_label(run: RunFolder, member: int, domains: Domains | None) -> str:
    """Return the name of a basis member, with the first terms if it is a known domain."""
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
    """Return the share of each domain for weights on the basis, or None if it is unknown."""
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
    """Return the contribution of each basis member to one domain in the last mixture. Sums to 1."""
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
    """Return what the run has sampled, or an estimate from its weights if it is not finished.

    None if neither is known, or if the run used another catalog.
    """
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
    """Return the estimate from the weights. Bounds on domains are ignored."""
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
    there = _available(run, domains)
    return DrawnDomains(
        taken / max(taken.sum(), 1.0),
        taken / np.maximum(there, length),
        np.maximum(there - taken, 0.0),
        expected=True,
    )


def _available(run: RunFolder, domains: Domains) -> Float[np.ndarray, " domains"]:
    """Return the available tokens per domain, limited by `data.tokens_per_domain`."""
    level = run.level if run.level in domains.levels.granularities else domains.level
    inside = domains.leaf_tokens.reshape(level, -1).sum(axis=1)
    most = run.count("data", "tokens_per_domain")
    if most is not None:
        inside = np.minimum(inside, most)
    return inside.reshape(domains.level, -1).sum(axis=1).astype(float)
