"""What a run may draw at most: scarce domains, and hard bounds that the weights are projected onto.

A bound is never a cliff. What is left of a domain is spread over what is left of the run, and a stage may take at most `PACE`
times its even share of it: a domain that the weights would use up early hands its share over bit by bit, the last of it in
the last stage. The weights themselves are not touched; what is drawn instead is a function of them and of the draws made so far.
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
from jaxtyping import Bool, Float, Int, Shaped

from data_catalog.errors import UserError
from trainer.config import Data
from trainer.sampling.permutation import derive, permutation_key

PACE = 2.0  # most of a stage, in even shares of what is left
UNBOUNDED = (
    2**40
)  # sequences: more than any run draws, and small enough to be added up over all leaves

Leaves = Int[np.ndarray, " leaves"]


def available_sequences(
    sequences: Leaves, level: int, tokens: int, length: int, seed: int
) -> Leaves:
    """How many sequences of each leaf are there to draw if every domain has at most `tokens`.

    A domain keeps `tokens // length` sequences, spread over its leaves in proportion by systematic sampling with one random
    offset a domain; which ones of a leaf, `Pool` decides. Exact in integers up to 3e9 sequences a domain.

    Args:
        sequences: of each leaf, in the store.
        level: how many domains the leaves form.
        length: tokens of a sequence.

    Raises:
        UserError: `tokens` is less than one sequence.
    """
    most = tokens // length
    if not most:
        raise UserError(
            f"data.tokens_per_domain = {tokens:,}: less than one sequence of {length:,} tokens; give every domain more"
        )
    ends = np.cumsum(sequences.reshape(level, -1), axis=1)
    total = np.maximum(ends[:, -1:], 1)
    offsets = derive(permutation_key(seed, "scarce"), np.arange(level, dtype=np.uint64)) % total[
        :, 0
    ].astype(np.uint64)
    kept = (ends * np.minimum(total, most) + offsets[:, None].astype(np.int64)) // total
    return np.diff(kept, prepend=0, axis=1).reshape(-1)


@dataclass(frozen=True)
class DrawBounds:
    """The most sequences that may still be drawn of each leaf and of each domain, in the `draws` that are still to be made.

    A domain's leaves are neighbours, and as many in each domain.
    """

    leaves: Leaves
    domains: Int[np.ndarray, " domains"]
    draws: int

    def left(self, used: Leaves) -> "DrawBounds":
        """What is left after `used` draws of each leaf."""
        domains = self.domains - used.reshape(len(self.domains), -1).sum(axis=1)
        return DrawBounds(
            np.maximum(self.leaves - used, 0), np.maximum(domains, 0), self.draws - int(used.sum())
        )

    def capacity(self) -> Int[np.ndarray, " domains"]:
        """The most sequences of each domain, its leaves' bounds counted in."""
        return np.minimum(self.leaves.reshape(len(self.domains), -1).sum(axis=1), self.domains)

    def require(self, length: int) -> None:
        """Refuse a run that cannot be drawn; one that can never runs dry, whatever its weights do.

        Raises:
            UserError: all bounds together leave less than `draws`.
        """
        most = int(self.capacity().sum())
        if most < self.draws:
            raise UserError(
                f"data.max_epochs and data.budgets leave {most * length:,} tokens of the domains that the basis reaches, and the run "
                f"draws {self.draws * length:,}; raise them or lower training.steps"
            )

    def used_up_after(self, weights: Float[np.ndarray, " leaves"]) -> Float[np.ndarray, " domains"]:
        """Draws of the run after which each domain would be used up if these weights were drawn as they are; infinity: never."""
        shares = weights.reshape(len(self.domains), -1).sum(axis=1) / weights.sum()
        after = np.divide(
            self.capacity(), shares, out=np.full(len(shares), np.inf), where=shares > 0
        )
        return np.where(after < self.draws, after, np.inf)

    def project(
        self, weights: Float[np.ndarray, " leaves"], draws: int
    ) -> Float[np.ndarray, " leaves"]:
        """The shares nearest to `weights` in relative entropy that a stage of `draws` may have; `weights` itself where nothing binds.

        If the weighted leaves cannot fill the stage at their pace, they take what they have; if that is not enough either, the rest
        comes from the other leaves, in proportion to what is left of them.

        Raises:
            UserError: fewer than `draws` are left of all leaves together.
        """
        pace = min(1.0, PACE * draws / max(self.draws, draws))
        wanted = weights / weights.sum() * draws
        paced = self._scaled(pace)
        if (wanted <= paced[0]).all() and (_by_domain(wanted, paced[1]) <= paced[1]).all():
            return weights
        for most in (paced, self._scaled(1.0)):
            drawn = _fill(weights, *most, draws)
            if _whole(drawn, draws):
                return drawn
        rest = np.where(drawn > 0, 0, self.leaves) * 1.0
        room = np.maximum(self.domains - _by_domain(drawn, self.domains), 0.0)
        drawn = drawn + _fill(rest, rest, room, draws - float(drawn.sum()))
        if not _whole(drawn, draws):
            left = round(float(drawn.sum()))
            raise UserError(
                f"data.max_epochs and data.budgets leave {left:,} sequences, and the next stage draws {draws:,}; raise them"
            )
        return drawn

    def settle(self, counts: Leaves, shares: Float[np.ndarray, " leaves"]) -> Leaves:
        """`counts` drawn by `shares`, which may be one too many by rounding: what is over goes to leaves with a share that have room."""
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
    sequences: Leaves,
    reached: Bool[np.ndarray, " leaves"],
    *,
    level: int,
    length: int,
    draws: int,
) -> DrawBounds | None:
    """The bounds of a whole run; None without `data.max_epochs` and `data.budgets`.

    A domain is drawn at most `max_epochs` times over, a leaf at most that rounded up to a whole number of its sequences.

    Args:
        sequences: that are there to draw, of each leaf.
        reached: whether any basis member has weight on the leaf: no other may be drawn.
        level: how many domains the leaves form.
        length: tokens of a sequence.
        draws: sequences of the run.

    Raises:
        UserError: the budgets cannot be read, or the bounds leave less than the run draws.
    """
    if data.max_epochs is None and data.budgets is None:
        return None
    bounds = DrawBounds(
        np.where(reached & (sequences > 0), UNBOUNDED, 0), np.full(level, UNBOUNDED), draws
    )
    if data.max_epochs is not None:
        epochs = data.max_epochs
        leaves = np.ceil(sequences * epochs - 1e-6).astype(
            np.int64
        )  # products of decimal fractions are not exact
        domains = np.floor(sequences.reshape(level, -1).sum(axis=1) * epochs + 1e-6).astype(
            np.int64
        )
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
    """Tokens that may be drawn of each domain: Parquet or CSV with columns `domain` and `tokens`, or a JSON object of domains to tokens.

    A domain that is not named has no budget of its own.

    Raises:
        UserError: the table cannot be read, or its rows do not fit the level.
    """
    try:
        if path.suffix == ".json":
            found = json.loads(path.read_text(encoding="utf-8"))
            table = pa.table(
                {"domain": [int(domain) for domain in found], "tokens": list(found.values())}
            )
        else:
            table = pa.csv.read_csv(path) if path.suffix == ".csv" else pq.read_table(path)
        domain, tokens = (
            pc.cast(table[name], pa.int64()).to_numpy() for name in ("domain", "tokens")
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"data.budgets {path}: expected whole numbers in columns domain and tokens, or a JSON object ({error})"
        ) from error
    if (
        not np.isin(domain, np.arange(level)).all()
        or (tokens < 0).any()
        or len(np.unique(domain)) < len(domain)
    ):
        raise UserError(
            f"data.budgets {path}: expected each domain of 0 to {level - 1} at most once, with tokens of at least 0"
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
    """`total` poured in proportion to `weights`, never over what a leaf or a domain holds: nested capped simplices.

    A domain at its bound has its own water level, which caps its leaves; with these caps one level fits all the others.
    """
    rows = weights.reshape(len(domains), -1)
    caps = np.minimum(leaves, total).reshape(rows.shape)
    full = np.flatnonzero(np.where(rows > 0, caps, 0.0).sum(axis=1) > domains)
    caps[full] = _pour(rows[full], caps[full], domains[full])
    return _pour(rows.reshape(1, -1), caps.reshape(1, -1), np.array([total])).reshape(-1)


def _pour(
    weights: Float[np.ndarray, "rows n"],
    caps: Float[np.ndarray, "rows n"],
    totals: Float[np.ndarray, " rows"],
) -> Float[np.ndarray, "rows n"]:
    """In each row, `min(level * weights, caps)` with the sum `total`: the projection onto the capped simplex in relative entropy.

    Exact, by sorting on weight / cap (the capping of Warmuth and Kuzmin, JMLR 9, 2008). If all caps together
    are less than the total, the caps. Written with quotients near one, so that weights of 1e-300 keep their proportions.
    """
    wet = (weights >= np.finfo(np.float64).tiny) & (caps > 0)
    fullness = np.divide(weights, caps, out=np.zeros_like(weights), where=wet)
    order = np.argsort(-fullness, axis=1, kind="stable")
    weight, cap = (
        np.take_along_axis(np.where(wet, values, 0.0), order, axis=1) for values in (weights, caps)
    )
    rest = np.cumsum(weight[:, ::-1], axis=1)[
        :, ::-1
    ]  # from the small end: a small sum is not the difference of large ones
    before = np.cumsum(np.pad(cap, ((0, 0), (1, 0)))[:, :-1], axis=1)
    needed = before + cap * np.divide(rest, weight, out=np.zeros_like(rest), where=weight > 0)
    capped = np.logical_and.accumulate((needed < totals[:, None]) & (weight > 0), axis=1)
    first = np.minimum(
        capped.sum(axis=1, keepdims=True), weight.shape[1] - 1
    )  # the first leaf that is not full
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
    rows: Int[np.ndarray, "rows n"], most: Int[np.ndarray, " rows"]
) -> Int[np.ndarray, "rows n"]:
    """Each row from its beginning, as far as its sum stays within `most`."""
    return np.diff(np.minimum(np.cumsum(rows, axis=1), most[:, None]), prepend=0, axis=1)


def _whole(drawn: Float[np.ndarray, " leaves"], draws: int) -> bool:
    return math.isclose(float(drawn.sum()), draws, rel_tol=1e-9)
