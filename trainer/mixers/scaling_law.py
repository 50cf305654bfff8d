"""A scaling law of the loss over tokens, fitted to the losses of one run."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

# Residual of the logarithm from which the Huber loss is linear, so that single noisy losses have
# little influence.
DELTA = 1e-3
EXPONENTS = (0.05, 0.8)  # bounds of the exponent, as published
GRID, ZOOMS, REWEIGHTINGS = 24, 4, 30
# Determinant, relative to the product of the squares, below which the numbers of tokens are too
# close to distinguish level and fall.
SINGULAR = 1e-13

Points = Float[np.ndarray, " points"]
_GridColumn = Float[np.ndarray, "grid 1"]


@dataclass(frozen=True)
class ScalingLaw:
    """The law `L(n) = irreducible + reducible * (n / last) ** -exponent`.

    L is in nats per token, n and `last` are numbers of tokens.
    """

    irreducible: float
    """Limit of the loss."""
    reducible: float
    """Loss above the limit at `last`."""
    exponent: float
    """Exponent of the decay."""
    last: float
    """Maximum number of tokens that the law was fitted to."""

    def slope(self) -> float:
        """Return `-dL/dn` at `last`, in nats per token, per token of training."""
        return self.exponent * self.reducible / self.last


def fit(tokens: Points, losses: Points, minimum: float = 0.0) -> ScalingLaw:
    """Return the law with the minimum Huber loss between its logarithms and those of the losses.

    The loss function is that of Hoffmann et al. 2022, section 3.3, and Jiang et al. 2024. Given the
    exponent, the law is linear in the two other parameters. They are computed by least squares on
    relative residuals, which approximate small logarithmic ones, reweighted toward the Huber loss.
    The exponent is searched on a grid, which is refined around its best point. The search is
    deterministic and needs no initial value. If the losses do not fall, `reducible` is 0.

    Args:
        tokens: numbers of tokens, increasing and positive.
        losses: losses in nats per token, positive.
        minimum: minimum of `irreducible`, in nats per token.
    """
    last = float(tokens[-1])
    low, high = EXPONENTS
    for _ in range(ZOOMS):
        exponents = np.linspace(low, high, GRID)
        decay = (tokens / last) ** -exponents[:, None]
        irreducible, reducible = _linear_parts(decay, losses, minimum)
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


def _linear_parts(
    decay: Float[np.ndarray, "grid points"], losses: Points, minimum: float
) -> tuple[_GridColumn, _GridColumn]:
    """Return the levels and falls for which `level + fall * decay` fits `losses`.

    Levels are at least `minimum`, and falls at least 0. They are computed by iteratively reweighted
    least squares.
    """
    # Both regressors are divided by the loss, so that the target is 1.
    level, fall = 1.0 / losses, decay / losses
    weights = np.ones_like(decay)
    for _ in range(REWEIGHTINGS):
        ll, lf, ff, l1, f1 = (
            (weights * of).sum(axis=1, keepdims=True)
            for of in (level**2, level * fall, fall**2, level, fall)
        )
        determinant = ll * ff - lf**2
        solvable = determinant > SINGULAR * ll * ff
        falls = np.divide(f1 * ll - l1 * lf, determinant, out=np.zeros_like(ll), where=solvable)
        levels = np.maximum((l1 - np.maximum(falls, 0.0) * lf) / ll, minimum)
        # With the least level, the fall is fitted alone.
        falls = np.maximum(np.where(levels > minimum, falls, (f1 - minimum * lf) / ff), 0.0)
        residuals = np.abs(levels * level + falls * fall - 1.0)
        weights = np.minimum(1.0, DELTA / np.maximum(residuals, 1e-300))
    return levels, falls


def _huber(residuals: Float[np.ndarray, "grid points"]) -> Float[np.ndarray, "grid points"]:
    size = np.abs(residuals)
    return np.where(size > DELTA, DELTA * (size - 0.5 * DELTA), 0.5 * size**2)
