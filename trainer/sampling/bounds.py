"""Limits on a run's draws: scarce domains, and hard bounds that the weights are projected onto.

A bound takes effect gradually. The remaining sequences of a domain are spread over the rest of the
run, and an interval may draw at most `PACE` times its even share. A domain that the weights would
use up early thus loses its share step by step, and its last sequences are drawn in the last
interval. The weights do not change. The draws are a function of the weights and the earlier draws.
"""

import json
import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq
from jaxtyping import Bool, Float, Int, Num, Shaped

from data_catalog.errors import UserError
from trainer.config import Data
from trainer.sampling.permutation import derive, permutation_key

PACE = 2.0  # maximum draws of an interval, in even shares of the rest
# Number of sequences that no run draws. It is small enough to sum over all leaves.
UNBOUNDED = 2**40

_Leaves = Int[np.ndarray, " leaves"]


def available_sequences(
    sequences: _Leaves, level: int, tokens: int, length: int, seed: int
) -> _Leaves:
    """Return the number of available sequences per leaf if a domain has at most `tokens`.

    A domain keeps `tokens // length` sequences. They are spread over its leaves in proportion, by
    systematic sampling with one random offset per domain. `Pool` selects the sequences of a leaf.
    The result is exact for up to 3e9 sequences per domain.

    Args:
        sequences: number of stored sequences per leaf.
        level: number of domains that the leaves form.
        tokens: maximum number of tokens per domain.
        length: tokens per sequence.
        seed: seed of the run.

    Raises:
        UserError: `tokens` is less than one sequence.
    """
    maximum = tokens // length
    if not maximum:
        raise UserError(
            f"data.tokens_per_domain: {tokens:,}. Expected at least one sequence of {length:,} "
            "tokens. Increase it."
        )
    ends = np.cumsum(sequences.reshape(level, -1), axis=1)
    total = np.maximum(ends[:, -1:], 1)
    offsets = derive(permutation_key(seed, "scarce"), np.arange(level, dtype=np.uint64)) % total[
        :, 0
    ].astype(np.uint64)
    edges = (ends * np.minimum(total, maximum) + offsets[:, None].astype(np.int64)) // total
    return np.diff(edges, prepend=0, axis=1).reshape(-1)


@dataclass(frozen=True)
class DrawBounds:
    """Maximum numbers of remaining draws per leaf and per domain.

    The leaves of a domain are adjacent, and every domain has the same number of leaves.
    """

    leaves: _Leaves
    """Maximum number of sequences per leaf."""
    domains: Int[np.ndarray, " domains"]
    """Maximum number of sequences per domain."""
    draws: int
    """Number of remaining draws of the run."""

    def left(self, used: _Leaves) -> "DrawBounds":
        """Return the remaining bounds after `used` draws per leaf."""
        domains = self.domains - used.reshape(len(self.domains), -1).sum(axis=1)
        return DrawBounds(
            np.maximum(self.leaves - used, 0), np.maximum(domains, 0), self.draws - int(used.sum())
        )

    def capacity(self) -> Int[np.ndarray, " domains"]:
        """Return the maximum number of sequences per domain, given the bounds of its leaves."""
        return np.minimum(self.leaves.reshape(len(self.domains), -1).sum(axis=1), self.domains)

    def available(self, weights: Float[np.ndarray, " leaves"]) -> int:
        """Return the maximum number of sequences from the leaves that have weight."""
        return int(replace(self, leaves=np.where(weights > 0, self.leaves, 0)).capacity().sum())

    def require(self, length: int) -> None:
        """Check that the bounds allow all draws of the run, whatever its weights will be.

        Args:
            length: tokens per sequence.

        Raises:
            UserError: All bounds together allow less than `draws`.
        """
        capacity = int(self.capacity().sum())
        if capacity < self.draws:
            raise UserError(
                f"data.max_epochs and data.budgets allow {capacity * length:,} tokens of the "
                f"domains that the basis reaches. The run draws {self.draws * length:,}. Raise the "
                "bounds, or lower training.steps."
            )

    def used_up_after(self, weights: Float[np.ndarray, " leaves"]) -> Float[np.ndarray, " domains"]:
        """Return the number of draws after which `weights` would use up each domain.

        It is infinite for domains that last until the end of the run.
        """
        shares = weights.reshape(len(self.domains), -1).sum(axis=1) / weights.sum()
        after = np.divide(
            self.capacity(), shares, out=np.full(len(shares), np.inf), where=shares > 0
        )
        return np.where(after < self.draws, after, np.inf)

    def project(
        self, weights: Float[np.ndarray, " leaves"], draws: int
    ) -> Float[np.ndarray, " leaves"]:
        """Return the allowed shares of an interval that are nearest to `weights`.

        The distance is the relative entropy. If no bound is active, `weights` itself is returned.
        If the weighted leaves cannot fill the interval at their pace, all of their sequences are
        used. If these are too few, the other leaves fill the rest, in proportion to their remaining
        sequences.

        Args:
            weights: weight of each leaf, on any scale.
            draws: number of draws of the interval.

        Raises:
            UserError: All leaves together have fewer than `draws` sequences left.
        """
        pace = min(1.0, PACE * draws / max(self.draws, draws))
        wanted = weights / weights.sum() * draws
        paced = self._scaled(pace)
        if (wanted <= paced[0]).all() and (_by_domain(wanted, paced[1]) <= paced[1]).all():
            return weights
        for limits in (paced, self._scaled(1.0)):
            drawn = _fill(weights, *limits, draws)
            if _is_complete(drawn, draws):
                return drawn
        rest = np.where(drawn > 0, 0, self.leaves) * 1.0
        room = np.maximum(self.domains - _by_domain(drawn, self.domains), 0.0)
        drawn = drawn + _fill(rest, rest, room, draws - float(drawn.sum()))
        if not _is_complete(drawn, draws):
            left = round(float(drawn.sum()))
            raise UserError(
                f"data.max_epochs and data.budgets allow {left:,} sequences. The next interval "
                f"draws {draws:,}. Raise the bounds."
            )
        return drawn

    def settle(self, counts: _Leaves, shares: Float[np.ndarray, " leaves"]) -> _Leaves:
        """Return `counts` without the excess over the bounds that rounding can cause.

        The excess moves to leaves with a share that have room.

        Args:
            counts: number of draws per leaf.
            shares: shares that they were drawn with.
        """
        rows = np.minimum(counts, self.leaves).reshape(len(self.domains), -1)
        rows = _at_most(rows, self.domains)
        missing = int(counts.sum() - rows.sum())
        if missing:
            room = np.where(shares > 0, self.leaves, 0).reshape(rows.shape) - rows
            room = _at_most(room, self.domains - rows.sum(axis=1))
            rows = rows + _at_most(room.reshape(1, -1), np.array([missing])).reshape(rows.shape)
        return rows.reshape(-1)

    def _scaled(
        self, pace: float
    ) -> tuple[Float[np.ndarray, " leaves"], Float[np.ndarray, " domains"]]:
        return self.leaves * pace, self.domains * pace


def build_bounds(
    data: Data,
    sequences: _Leaves,
    reached: Bool[np.ndarray, " leaves"],
    *,
    level: int,
    length: int,
    draws: int,
) -> DrawBounds | None:
    """Return the bounds of a whole run, or None without `data.max_epochs` and `data.budgets`.

    A domain is drawn at most `max_epochs` times. For a leaf that number is rounded up to a whole
    number of sequences.

    Args:
        data: the settings.
        sequences: number of available sequences per leaf.
        reached: whether any basis member has weight on the leaf. Other leaves are never drawn.
        level: number of domains that the leaves form.
        length: tokens per sequence.
        draws: number of sequences of the run.

    Raises:
        UserError: The budgets cannot be read, or the bounds allow less than the run draws.
    """
    if data.max_epochs is None and data.budgets is None:
        return None
    bounds = DrawBounds(
        np.where(reached & (sequences > 0), UNBOUNDED, 0), np.full(level, UNBOUNDED), draws
    )
    if data.max_epochs is not None:
        epochs = data.max_epochs
        # The tolerance is there because products of decimal fractions are not exact.
        leaves = np.ceil(sequences * epochs - 1e-6).astype(np.int64)
        domain_sequences = sequences.reshape(level, -1).sum(axis=1)
        domains = np.floor(domain_sequences * epochs + 1e-6).astype(np.int64)
        bounds = DrawBounds(
            np.minimum(bounds.leaves, leaves), np.minimum(bounds.domains, domains), draws
        )
    if data.budgets is not None:
        bounds = replace(
            bounds, domains=np.minimum(bounds.domains, read_budgets(data.budgets, level) // length)
        )
    bounds.require(length)
    return bounds


def read_budgets(path: Path, level: int) -> Int[np.ndarray, " domains"]:
    """Read the token budget per domain.

    The file is Parquet or CSV with columns `domain` and `tokens`, or a JSON object from domains to
    tokens. A domain that is not listed has no budget of its own.

    Args:
        path: the file.
        level: number of domains.

    Raises:
        UserError: The table cannot be read, or its rows do not fit the level.
    """
    try:
        if path.suffix == ".json":
            budgets_by_domain = json.loads(path.read_text(encoding="utf-8-sig"))
            numbers = [int(domain) for domain in budgets_by_domain]
            table = pa.table({"domain": numbers, "tokens": list(budgets_by_domain.values())})
        else:
            table = pa.csv.read_csv(path) if path.suffix == ".csv" else pq.read_table(path)
        domain, tokens = (
            pc.cast(table[name], pa.int64()).to_numpy() for name in ("domain", "tokens")
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"data.budgets {path}: The file cannot be read ({error}). Expected integers in columns "
            "domain and tokens, or a JSON object."
        ) from error
    if (
        not np.isin(domain, np.arange(level)).all()
        or (tokens < 0).any()
        or len(np.unique(domain)) < len(domain)
    ):
        raise UserError(
            f"data.budgets {path}: A row is not valid. Expected domains from 0 to {level - 1}, "
            "each at most once, with a non-negative number of tokens."
        )
    budgets = np.full(level, np.iinfo(np.int64).max)
    budgets[domain] = tokens
    return budgets


def _fill(
    weights: Float[np.ndarray, " leaves"],
    leaves: Float[np.ndarray, " leaves"],
    domains: Float[np.ndarray, " domains"],
    total: float,
) -> Float[np.ndarray, " leaves"]:
    """Distribute `total` in proportion to `weights`, within the bounds of leaves and domains.

    These are nested capped simplices. A domain at its bound has its own water level, which caps its
    leaves. With these caps a single level fits all other leaves.
    """
    rows = weights.reshape(len(domains), -1)
    caps = np.minimum(leaves, total).reshape(rows.shape)
    full = np.flatnonzero(np.where(rows > 0, caps, 0.0).sum(axis=1) > domains)
    caps[full] = _pour(rows[full], caps[full], domains[full])
    return _pour(rows.reshape(1, -1), caps.reshape(1, -1), np.array([total])).reshape(-1)


def _pour(
    weights: Float[np.ndarray, "rows n"],
    caps: Float[np.ndarray, "rows n"],
    totals: Num[np.ndarray, " rows"],
) -> Float[np.ndarray, "rows n"]:
    """Return in each row `min(level * weights, caps)`, with the level that gives the total.

    This is the projection onto the capped simplex in relative entropy. It is exact, by sorting on
    weight / cap (Warmuth & Kuzmin, JMLR 9, 2008). If the caps of a row sum to less than its total,
    the result is the caps. The quotients are near one, so that weights of 1e-300 keep their
    proportions.
    """
    wet = (weights >= np.finfo(np.float64).tiny) & (caps > 0)
    fullness = np.divide(weights, caps, out=np.zeros_like(weights), where=wet)
    order = np.argsort(-fullness, axis=1, kind="stable")
    weight, cap = (
        np.take_along_axis(np.where(wet, values, 0.0), order, axis=1) for values in (weights, caps)
    )
    # Sum from the small end, so that a small sum is not a difference of large ones.
    rest = np.cumsum(weight[:, ::-1], axis=1)[:, ::-1]
    before = np.cumsum(np.pad(cap, ((0, 0), (1, 0)))[:, :-1], axis=1)
    needed = before + cap * np.divide(rest, weight, out=np.zeros_like(rest), where=weight > 0)
    capped = np.logical_and.accumulate((needed < totals[:, None]) & (weight > 0), axis=1)
    # The first leaf that is not at its cap.
    first = np.minimum(capped.sum(axis=1, keepdims=True), weight.shape[1] - 1)
    over = totals[:, None] - np.take_along_axis(before, first, axis=1)
    quotient = np.divide(
        weight,
        np.take_along_axis(rest, first, axis=1),
        out=np.zeros_like(weight),
        where=~capped & (weight > 0),
    )
    filled = np.empty_like(weights)
    np.put_along_axis(
        filled, order, np.where(capped, cap, np.minimum(cap, quotient * over)), axis=1
    )
    return filled


def _by_domain(
    leaves: Float[np.ndarray, " leaves"], domains: Shaped[np.ndarray, " domains"]
) -> Float[np.ndarray, " domains"]:
    return leaves.reshape(len(domains), -1).sum(axis=1)


def _at_most(
    rows: Int[np.ndarray, "rows n"], totals: Int[np.ndarray, " rows"]
) -> Int[np.ndarray, "rows n"]:
    """Return each row, cut where its cumulative sum exceeds its total."""
    return np.diff(np.minimum(np.cumsum(rows, axis=1), totals[:, None]), prepend=0, axis=1)


def _is_complete(drawn: Float[np.ndarray, " leaves"], draws: int) -> bool:
    return math.isclose(float(drawn.sum()), draws, rel_tol=1e-9)
