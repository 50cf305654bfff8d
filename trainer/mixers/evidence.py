"""Treatment of missing and noisy scores, and of scores without a known scale."""

import numpy as np

from trainer.mixers import Weights

LEAST_SPREAD = 1e-12  # of the largest score: less is rounding, and dividing by it would make noise look like a ranking


def filled(values: Weights) -> Weights:
    """Return `values` with NaN replaced by the mean of the known ones, or by 0 if none is known."""
    known = np.isfinite(values)
    return np.where(known, values, values[known].mean() if known.any() else 0.0)


def shrunk(scores: Weights, errors: Weights) -> Weights:
    """Scores pulled toward their mean by what their standard errors say is noise.

    `mean + t / (t + error_i^2) * (score_i - mean)`, t the variance of the true scores, estimated by moments as
    `max(0, variance(scores) - mean(error^2))`: empirical Bayes (Efron & Morris 1975, unequal variances). A ranking that the errors explain
    altogether is no ranking: t is 0 and all scores become their mean. A member whose error is NaN keeps its score, and so do all where
    fewer than two have finite ones: t cannot be told then.
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
    """Scores less their mean, over the standard deviation of `spread_of`; all zero where that has no spread, as with one member.

    The plain mean and spread, not those under the weights of the moment: once one member is drawn nearly always, its own score would be
    the mean, and the spread nothing.
    """
    spread = spread_of.std()
    if spread <= LEAST_SPREAD * np.abs(spread_of).max():
        return np.zeros_like(scores)
    standard: Weights = (scores - scores.mean()) / spread
    return standard
