"""The discount of repeated data, by hand and as the optimum that it claims to be."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.sampling.repetition import discounted, thinned_sequences

R = 15.0


def worth(n: np.ndarray, epochs: np.ndarray) -> np.ndarray:
    repeated = n * (1 + R * (1 - np.exp(-(np.maximum(epochs, 1) - 1) / R)))
    return np.where(epochs <= 1, n * epochs, repeated)


def test_without_repetition_the_weights_are_exact() -> None:
    weights = np.array([0.1, 0.2, 0.7])
    drawn = discounted(weights, np.array([100, 100, 100]), 120, R)
    assert drawn.tolist() == weights.tolist()


def test_by_hand() -> None:
    # Half of 100 draws from a leaf of 2 sequences would be 25 epochs. The other leaf is plentiful.
    sequences = np.array([2, 1000])
    drawn = discounted(np.array([0.5, 0.5]), sequences, 100, R) * 100
    epochs = drawn / sequences
    q = np.exp((epochs[0] - 1) / R) * (1 + R) - R  # weight / (mu n) of the repeated leaf
    assert drawn.sum() == pytest.approx(100)
    assert q == pytest.approx(epochs[1] * 1000 / 2)  # the same mu in both leaves
    assert 17 < epochs[0] < 18


def test_empty_leaves_and_leaves_without_weight_stay_empty() -> None:
    drawn = discounted(np.array([0.6, 0.0, 0.4]), np.array([1, 5, 0]), 50, R)
    assert drawn.tolist() == [1.0, 0.0, 0.0]


def test_a_small_number_of_repetitions_discounts_more() -> None:
    weights, sequences = np.array([0.5, 0.5]), np.array([2, 1000])
    shares = [discounted(weights, sequences, 100, r)[0] for r in (1e9, 15, 4, 1)]
    assert shares[0] == pytest.approx(0.5, rel=1e-6)
    assert shares == sorted(shares, reverse=True)


@given(
    st.lists(st.tuples(st.floats(0.01, 1), st.integers(1, 40)), min_size=2, max_size=8),
    st.integers(20, 2000),
    st.integers(0, 2**32 - 1),
)
def test_no_other_shares_are_worth_more(
    leaves: list[tuple[float, int]], draws: int, seed: int
) -> None:
    weights = np.array([weight for weight, _ in leaves])
    sequences = np.array([number for _, number in leaves])
    n = sequences.astype(float)
    best = discounted(weights, sequences, draws, R)
    assert best.sum() == pytest.approx(1)

    def value(shares: np.ndarray) -> float:
        return float((weights * np.log(worth(n, shares * draws / n))).sum())

    moves = np.random.default_rng(seed)
    for _ in range(5):
        other = np.abs(best * (1 + 0.05 * moves.normal(size=len(best)))) + 1e-12
        assert value(other / other.sum()) <= value(best) + 1e-9


def test_thinning_keeps_one_share_of_every_leaf() -> None:
    sequences = np.array([0, 1, 10, 100, 1000] * 20)
    kept = np.mean([thinned_sequences(sequences, 0.3, seed) for seed in range(200)], axis=0)
    for seed in (0, 1):
        thinned = thinned_sequences(sequences, 0.3, seed)
        assert (np.abs(thinned - 0.3 * sequences) < 1).all()
        assert thinned.sum() == pytest.approx(0.3 * sequences.sum(), abs=1)
    assert kept == pytest.approx(0.3 * sequences, abs=0.2)
    assert thinned_sequences(sequences, 1.0, 3).tolist() == sequences.tolist()
