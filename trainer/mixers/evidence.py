"""Treatment of missing and noisy scores, and of scores without a known scale."""

import numpy as np

from trainer.mixers import Weights

# Minimum spread of the scores as a share of the largest. A smaller spread is rounding noise, which
# must not be scaled up.
MINIMUM_SPREAD = 1e-12


def filled(values: Weights) -> Weights:
    """Return `values` with NaN replaced by the mean of the known ones, or by 0 if none is known."""
    known = np.isfinite(values)
    return np.where(known, values, values[known].mean() if known.any() else 0.0)


def shrunk(scores: Weights, errors: Weights) -> Weights:
    """Return the scores, shrunk toward their mean in proportion to their noise.

    This is empirical Bayes for unequal variances (Efron & Morris 1975). A score becomes `mean + t /
    (t + error_i^2) * (score_i - mean)`. t is the variance of the true scores, estimated by moments
    as `max(0, variance(scores) - mean(error^2))`. If the errors explain all differences, t is 0,
    and all scores become their mean. A member whose error is NaN keeps its score. If fewer than two
    members have a finite score and error, t cannot be estimated, and all keep their scores.

    Args:
        scores: the scores.
        errors: their standard errors.
    """
    measured = np.isfinite(scores) & np.isfinite(errors)
    if measured.sum() < 2:
        return scores
    signal = max(0.0, float(scores[measured].var(ddof=1) - (errors[measured] ** 2).mean()))
    total = signal + np.where(np.isnan(errors), 0.0, errors) ** 2
    trust = np.divide(signal, total, out=np.ones_like(total), where=total > 0)
    mean = scores[measured].mean()
    pulled: Weights = mean + trust * (scores - mean)
    return pulled


def standardised(scores: Weights, spread_of: Weights) -> Weights:
    """Return the scores minus their mean, divided by the standard deviation of `spread_of`.

    The result is zero if `spread_of` has no spread, for example with a single member. Mean and
    standard deviation are not weighted by the current mixture. Otherwise, if one member had nearly
    all of the weight, its score would be the mean, and the spread would vanish.

    Args:
        scores: the scores.
        spread_of: the values whose standard deviation is used.
    """
    spread = spread_of.std()
    if spread <= MINIMUM_SPREAD * np.abs(spread_of).max():
        return np.zeros_like(scores)
    standard: Weights = (scores - scores.mean()) / spread
    return standard
