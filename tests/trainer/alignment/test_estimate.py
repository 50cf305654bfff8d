"""Estimates for members from scored sequences, by hand and by simulation."""

import numpy as np
import pytest
import torch

from trainer.alignment import Alignment
from trainer.alignment.estimate import estimate_alignment, importance_weights
from trainer.distributed import Team

DOMAINS = np.eye(3)
MIXED = np.array([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8], [1 / 3, 1 / 3, 1 / 3]])


def estimate_of(
    scores: np.ndarray, tokens: np.ndarray, weights: np.ndarray, losses: np.ndarray | None = None
) -> Alignment:
    found = torch.as_tensor(scores, dtype=torch.float64)
    nats = found if losses is None else torch.as_tensor(losses, dtype=torch.float32)
    return estimate_alignment(found, torch.as_tensor(tokens), nats, weights, Team())


def test_importance_weights_by_hand() -> None:
    weights = importance_weights(MIXED, np.array([2, 0, 2]), np.array([0.5, 0.25, 0.25]))
    np.testing.assert_allclose(weights, [[0.4, 1.4, 0.4], [3.2, 0.2, 3.2], [4 / 3, 2 / 3, 4 / 3]])
    balanced = importance_weights(MIXED, np.array([0, 1, 2]), MIXED.mean(axis=0))
    np.testing.assert_allclose(balanced.sum(axis=0), 3)  # weights of a sequence
    with pytest.raises(ValueError, match="leaf 1"):
        importance_weights(MIXED, np.array([0, 1]), np.array([0.5, 0.0, 0.5]))


def test_domains_have_the_plain_means_and_their_textbook_errors() -> None:
    """A domain without a sequence is unknown. With a single sequence, only the error is unknown."""
    matrix, leaves = np.eye(4), np.array([0, 1, 0, 0, 1, 2])
    scores, tokens, losses = (
        np.array([3.0, 1.0, 6.0, 12.0, 5.0, 8.0]),
        np.full(6, 2),
        np.array([4.0, 2.0, 5.0, 6.0, 4.0, 1.0]),
    )
    found = estimate_of(
        scores, tokens, importance_weights(matrix, leaves, np.array([0.4, 0.3, 0.2, 0.1])), losses
    )
    np.testing.assert_allclose(found.scores, [3.5, 1.5, 4.0, np.nan])
    np.testing.assert_allclose(found.losses, [2.5, 1.5, 0.5, np.nan])
    spread = [np.std([1.5, 3.0, 6.0], ddof=1) / np.sqrt(3), np.std([0.5, 2.5], ddof=1) / np.sqrt(2)]
    np.testing.assert_allclose(found.errors, [*spread, np.inf, np.inf])
    np.testing.assert_allclose(found.effective, [3, 2, 1, 0])


def test_a_ratio_with_unequal_sequences_by_hand() -> None:
    scores, tokens, weights = (
        np.array([6.0, 2.0, 5.0]),
        np.array([3, 1, 2]),
        np.array([[1.0, 2.0, 0.5]]),
    )
    found = estimate_of(scores, tokens, weights)
    assert found.scores[0] == pytest.approx((6 + 4 + 2.5) / (3 + 2 + 1))
    without = [(4 + 2.5) / 3, (6 + 2.5) / 4, (6 + 4) / 5]  # Each one omits a sequence.
    squares = sum((value - 12.5 / 6) ** 2 for value in without)
    assert found.errors[0] == pytest.approx(np.sqrt((1 - (9 + 4 + 1) / 36) * squares))
    assert found.effective[0] == pytest.approx(3.5**2 / 5.25)


LEVEL, LENGTH, DENSITY = (
    np.array([1.0, -1.0, 2.0]),
    np.array([20, 10, 15]),
    np.array([0.5, 0.3, 0.2]),
)  # of each leaf
TRUTH = (MIXED @ (LENGTH * LEVEL)) / (MIXED @ LENGTH)


def simulate(
    rounds: int, sources: list[tuple[np.ndarray, int]]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return scores, errors and losses of simulated sequences.

    They depend on the leaf, the length and chance.
    """
    rng = np.random.default_rng(0)
    count = sum(draws for _, draws in sources)
    density = sum(p * draws for p, draws in sources) / count
    found = []
    for _ in range(rounds):
        leaves = np.concatenate([rng.choice(3, draws, p=p) for p, draws in sources])
        tokens = LENGTH[leaves] + rng.integers(-5, 6, count)
        scores = tokens * (LEVEL[leaves] + 0.5 * rng.standard_normal(count))
        found.append(
            estimate_of(
                scores, tokens, importance_weights(MIXED, leaves, density), losses=2 * scores
            )
        )
    return (
        np.stack([one.scores for one in found]),
        np.stack([one.errors for one in found]),
        np.stack([one.losses for one in found]),
    )


def calibration(scores: np.ndarray, errors: np.ndarray) -> np.ndarray:
    """Return for each member the estimated error divided by the real one."""
    return np.sqrt((errors**2).mean(axis=0) / ((scores - TRUTH) ** 2).mean(axis=0))


def test_means_are_unbiased_for_any_mixture() -> None:
    scores, errors, losses = simulate(1500, [(DENSITY, 256)])
    assert (
        np.abs(scores.mean(axis=0) - TRUTH) < 0.1 * scores.std(axis=0)
    ).all()  # a ratio's bias is of order 1 / n, its spread 1 / sqrt(n)
    np.testing.assert_allclose(calibration(scores, errors), 1, atol=0.05)
    np.testing.assert_allclose(losses, 2 * scores, rtol=1e-5)


def test_errors_of_a_training_batch_are_calibrated() -> None:
    scores, errors, _ = simulate(1500, [(DENSITY, 64)])
    np.testing.assert_allclose(calibration(scores, errors), 1, atol=0.06)
    inside = (np.abs(scores - TRUTH) < 1.96 * errors).mean(axis=0)
    assert (np.abs(inside - 0.95) < 0.03).all(), inside


def test_errors_of_few_probes_per_member_are_not_too_small() -> None:
    """Without leverages, the delta method for four probes per member is 5 % too small."""
    scores, errors, _ = simulate(1500, [(member, 4) for member in MIXED])
    ratios = calibration(scores, errors)
    assert 1 <= ratios.min() <= ratios.max() < 1.15, ratios


def test_shares_are_means_per_token() -> None:
    scores, tokens = torch.tensor([1.0, 3.0], dtype=torch.float64), torch.tensor([2, 6])
    found = estimate_alignment(
        scores, tokens, scores, np.ones((1, 2)), Team(), {"head": 5.0, "body": -1.0}
    )
    assert found.shares == {"head": 5 / 8, "body": -1 / 8}
    assert sum(found.shares.values()) == pytest.approx(found.scores[0])
