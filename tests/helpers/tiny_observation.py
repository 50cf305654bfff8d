"""Observations of mixers, with NaN for values that a test does not set."""

import numpy as np

from trainer.mixers import Observation


def seeing(
    scores=None, errors=None, losses=None, excess=None, step=100, tokens=None
) -> Observation:
    members = len(next(given for given in (scores, losses, excess) if given is not None))

    def array(given):
        return np.full(members, np.nan) if given is None else np.array(given, np.float64)

    drawn = (
        np.full(members, 1000.0 * step / members)
        if tokens is None
        else np.array(tokens, np.float64)
    )
    return Observation(
        step, 1000, drawn, array(scores), array(errors), array(losses), array(excess)
    )
