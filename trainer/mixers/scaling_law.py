"""A scaling law of the loss over tokens, fitted to the losses of one run."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

DELTA = 1e-3  # of the Huber loss on logarithms: beyond a residual of 0.1 % it is linear, so that a noisy loss does not decide
EXPONENTS = (0.05, 0.8)  # bounds of alpha, as published
GRID, ZOOMS, REWEIGHTINGS = 24, 4, 30
SINGULAR = (
    1e-13  # of the product of the squares: tokens so close that level and fall cannot be told apart
)

Points = Float[np.ndarray, " points"]
Column = Float[np.ndarray, "grid 1"]


@dataclass(frozen=True)
class ScalingLaw:
    """`L(n) = irreducible + reducible * (n / last) ** -exponent`, in nats a token; n and last in tokens."""

    irreducible: float
    reducible: float  # at `last`, the most tokens that the law was fitted to
    exponent: float
    last: float

    def slope(self) -> float:
        """`-dL/dn` at `last`, in nats a token per token: how fast the loss falls now."""
        return self.exponent * self.reducible / self.last


def fit(tokens: Points, losses: Points) -> ScalingLaw:
    """Least Huber loss between the logarithms of law and losses (Hoffmann et al. 2022, section 3.3; Jiang et al. 2024).

    Given the exponent, the law is linear in the other two, which follow in closed form from relative residuals (as small logarithmic
    ones are), reweighted toward the Huber loss. So only the exponent is searched, on a grid that zooms in on its best point:
    deterministic, with no start to choose. A loss that does not fall has nothing reducible.

    Args:
        tokens: growing and positive.
        losses: positive.
    """
    last = float(tokens[-1])
    low, high = EXPONENTS
    for _ in range(ZOOMS):
        exponents = np.linspace(low, high, GRID)
        decay = (tokens / last) ** -exponents[:, None]
        irreducible, reducible = _linear_parts(decay, losses)
        best = int(
            np.argmin(_huber(np.log((irreducible + reducible * decay) / losses)).sum(axis=1))
        )
        reach = 2 * (high - low) / (GRID - 1)
        low, high = (
            max(exponents[best] - reach, EXPONENTS[0]),
            min(exponents[best] + reach, EXPONENTS[1]),
        )
    return ScalingLaw(
        float(irreducible[best, 0]), float(reducible[best, 0]), float(exponents[best]), last
    )


def _linear_parts(decay: Float[np.ndarray, "grid points"], losses: Points) -> tuple[Column, Column]:
    """Level and fall, neither negative, of `level + fall * decay` nearest to `losses`: iteratively reweighted least squares."""
    level, fall = (
        1.0 / losses,
        decay / losses,
    )  # each regressor over the loss; both together shall be 1
    weights = np.ones_like(decay)
    for _ in range(REWEIGHTINGS):
        ll, lf, ff, l1, f1 = (
            (weights * of).sum(axis=1, keepdims=True)
            for of in (level**2, level * fall, fall**2, level, fall)
        )
        determinant = ll * ff - lf**2
        solvable = determinant > SINGULAR * ll * ff
        falls = np.divide(f1 * ll - l1 * lf, determinant, out=np.zeros_like(ll), where=solvable)
        levels = np.maximum(l1 - np.maximum(falls, 0.0) * lf, 0.0) / ll
        falls = np.where(
            levels > 0, np.maximum(falls, 0.0), f1 / ff
        )  # no level is left: the fall has to reach the losses alone
        residuals = np.abs(levels * level + falls * fall - 1.0)
        weights = np.minimum(1.0, DELTA / np.maximum(residuals, 1e-300))
    return levels, falls


def _huber(residuals: Float[np.ndarray, "grid points"]) -> Float[np.ndarray, "grid points"]:
    size = np.abs(residuals)
    return np.where(size > DELTA, DELTA * (size - 0.5 * DELTA), 0.5 * size**2)
