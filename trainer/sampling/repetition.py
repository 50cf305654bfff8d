"""Repetition: a discount of repeated data, and data thinned to repeat as in a longer run."""

import numpy as np
from jaxtyping import Float, Int

from trainer.sampling.permutation import generator

BISECTIONS = 200
PRECISION = 2.0**-44  # of a share, so that rounding of logarithms rarely changes a draw

_Weights = Float[np.ndarray, " leaves"]
_Sequences = Int[np.ndarray, " leaves"]


def discounted(weights: _Weights, sequences: _Sequences, draws: int, repetition: float) -> _Weights:
    """Return the shares to draw with, if repeated sequences are worth less than new ones.

    A leaf of n sequences that is drawn e times over is worth as much as

        n e                                        if e <= 1
        n (1 + R (1 - exp(-(e - 1) / R)))          otherwise

    new sequences (Muennighoff et al. 2023, section 5, with e - 1 repetitions). The shares maximise
    the sum of `weights * log(worth)`. Without repetition they are the weights themselves. With
    `q = weights / (mu n)`, the solution is

        e = q                                      if q <= 1
        e = 1 + R log((q + R) / (1 + R))           otherwise

    where mu makes the draws of all leaves sum to `draws`.

    Args:
        weights: weight of each leaf, on any scale; zero for leaves without sequences.
        sequences: n, the number of sequences per leaf.
        draws: number of sequences that the run draws.
        repetition: R, the number of repetitions after which repeating is worth little.

    Returns:
        The shares, which sum to 1.
    """
    shares = weights / weights.sum()
    n = sequences.astype(np.float64)
    wanted = np.divide(shares * draws, n, out=np.zeros_like(shares), where=n > 0)
    if wanted.max() <= 1.0:
        return shares

    def epochs(scale: float) -> _Weights:
        q = scale * wanted
        repeated = 1.0 + repetition * np.log((np.maximum(q, 1.0) + repetition) / (1 + repetition))
        return np.where(q <= 1.0, q, repeated)

    low, high = 1.0, 2.0  # The discount shrinks draws, so the scale exceeds 1.
    while (n * epochs(high)).sum() < draws:
        high *= 2.0
    for _ in range(BISECTIONS):
        middle = 0.5 * (low + high)
        if not low < middle < high:
            break
        if (n * epochs(middle)).sum() < draws:
            low = middle
        else:
            high = middle
    drawn = n * epochs(high)
    rounded: _Weights = np.round(drawn / drawn.sum() / PRECISION) * PRECISION
    return rounded / rounded.sum()


def thinned_sequences(sequences: _Sequences, ratio: float, seed: int) -> _Sequences:
    """Return the number of available sequences per leaf if every leaf is thinned by one ratio.

    Systematic sampling with one random offset makes each number unbiased and less than one from
    `ratio * sequences`. `Pool` selects the sequences of a leaf.

    Args:
        sequences: number of stored sequences per leaf.
        ratio: share of them to keep, from 0 to 1.
        seed: seed of the run.
    """
    # The offset is coarse enough for sums to be exact.
    offset = float(generator(seed, "thinned").integers(2**20)) / 2**20
    edges = np.floor(np.cumsum(sequences) * ratio + offset).astype(np.int64)
    return np.diff(edges, prepend=0)
