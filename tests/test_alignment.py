"""The exact backend, on problems whose gradients are known: the sign, the identities of the method, and convergence."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from trainer.alignment import Alignment
from trainer.alignment.exact import exact_scores
from trainer.distributed import Team
from trainer.mixers import uniform_state
from trainer.mixers.dga import Dga


def quadratic(theta: nn.Parameter, center: list[float] | np.ndarray) -> Tensor:
    """1/2 |theta - center|^2: its gradient is theta - center."""
    return 0.5 * ((theta - torch.as_tensor(np.array(center), dtype=theta.dtype)) ** 2).sum()


def run_backward(loss: Tensor) -> Tensor:
    loss.backward()
    return loss.detach()


def align(theta: nn.Parameter, target: list[float], centers: list[list[float]], scores: str = "raw") -> Alignment:
    members = [lambda c=c: run_backward(quadratic(theta, c)) for c in centers]
    return exact_scores([theta], lambda: run_backward(quadratic(theta, target)), members, scores, Team())


def test_scores_by_hand() -> None:
    theta = nn.Parameter(torch.tensor([3.0, 0.0], dtype=torch.float64))  # target gradient (3, 4), members (1, 0) and (0, -8)
    found = align(theta, [0.0, -4.0], [[2.0, 0.0], [3.0, 8.0]])
    assert found.scores.tolist() == [3.0, -32.0]
    assert found.target_loss == 12.5
    assert found.target_norm == 5.0
    assert theta.grad is None


def test_clipped_and_cosine_by_hand() -> None:
    theta = nn.Parameter(torch.tensor([3.0, 0.0], dtype=torch.float64))
    centers = [[2.5, 0.0], [3.0, 8.0]]  # gradients (0.5, 0), short: not clipped; and (0, -8)
    np.testing.assert_allclose(align(theta, [0.0, -4.0], centers, "clipped").scores, [0.3, -0.8], rtol=1e-12)
    np.testing.assert_allclose(align(theta, [0.0, -4.0], centers, "cosine").scores, [0.6, -0.8], rtol=1e-12)


def test_a_gradient_left_by_the_last_step_does_not_count() -> None:
    theta = nn.Parameter(torch.tensor([3.0, 0.0], dtype=torch.float64))
    theta.grad = torch.tensor([100.0, 100.0], dtype=torch.float64)
    assert align(theta, [0.0, -4.0], [[2.0, 0.0], [3.0, 8.0]]).scores.tolist() == [3.0, -32.0]


def test_a_zero_gradient_scores_zero() -> None:
    theta = nn.Parameter(torch.tensor([3.0, 0.0], dtype=torch.float64))
    assert align(theta, [0.0, 0.0], [[3.0, 0.0]], "cosine").scores.tolist() == [0.0]


def test_sign_the_domain_that_equals_the_target_gains_weight() -> None:
    theta = nn.Parameter(torch.tensor([0.0, 0.0], dtype=torch.float64))
    found = align(theta, [1.0, 1.0], [[1.0, 1.0], [-1.0, -1.0]])
    state = Dga(eta=0.1, ema=1.0).propose(uniform_state(2), found.scores)
    assert state.alpha[0] > 0.5 > state.alpha[1]


@pytest.mark.parametrize("kind", ["raw", "clipped"])
def test_the_mixed_scores_are_minus_the_derivative_of_the_target_loss(kind: str) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2)).double()
    parameters = list(net.parameters())
    data = [(torch.randn(8, 3).double(), torch.randn(8, 2).double()) for _ in range(4)]

    def loss(i: int) -> Tensor:
        return ((net(data[i][0]) - data[i][1]) ** 2).mean() * 0.1  # small gradients: clipping leaves them alone

    members = [lambda i=i: run_backward(loss(i)) for i in range(3)]
    scores = exact_scores(parameters, lambda: run_backward(loss(3)), members, kind, Team()).scores
    alpha = np.array([0.2, 0.5, 0.3])
    mixed = torch.autograd.grad(sum(a * loss(i) for i, a in enumerate(alpha)), parameters)
    step, losses = 1e-5, []
    for sign in (-1, 1):
        with torch.no_grad():
            for p, g in zip(parameters, mixed, strict=True):
                p.sub_(sign * step * g)
            losses.append(loss(3).item())
            for p, g in zip(parameters, mixed, strict=True):
                p.add_(sign * step * g)
    derivative = (losses[1] - losses[0]) / (2 * step)  # of the target loss, along a step of descent on the mixture
    assert alpha @ scores == pytest.approx(-derivative, rel=1e-6)


def test_distributions_with_identity_rows_equal_domains_and_scores_are_linear() -> None:
    theta = nn.Parameter(torch.tensor([0.5, -2.0, 1.0], dtype=torch.float64))
    centers, matrix = np.array([[1.0, 0, 0], [0, 2.0, 0], [0, 0, 3.0]]), np.array([[0.2, 0.3, 0.5], [0.0, 1.0, 0.0]])
    domains = align(theta, [1.0, 1.0, 1.0], centers.tolist()).scores

    def mixture(row: np.ndarray) -> Tensor:
        return run_backward(sum(share * quadratic(theta, c) for share, c in zip(row, centers, strict=True)))

    def over(rows: np.ndarray) -> np.ndarray:
        members = [lambda row=row: mixture(row) for row in rows]
        return exact_scores([theta], lambda: run_backward(quadratic(theta, [1.0, 1.0, 1.0])), members, "raw", Team()).scores

    np.testing.assert_allclose(over(np.eye(3)), domains, rtol=1e-12)
    np.testing.assert_allclose(over(matrix), matrix @ domains, rtol=1e-12)


def test_dga_finds_the_known_optimum_of_a_quadratic_problem() -> None:
    # The target is 0.6 A + 0.3 B + 0.1 C of three domains in general position: those weights, and no others, train to it.
    centers, optimum = np.array([[2.0, 0, 1.0], [0, 2.0, -1.0], [-1.0, -1.0, 2.0]]), np.array([0.6, 0.3, 0.1])
    target = (optimum @ centers).tolist()
    theta = nn.Parameter(torch.zeros(3, dtype=torch.float64))
    mixer, state = Dga(eta=0.2, ema=0.5), uniform_state(3)
    for _ in range(400):
        state = mixer.propose(state, align(theta, target, centers.tolist()).scores)
        for _ in range(5):
            with torch.no_grad():
                theta -= 0.3 * (theta - torch.from_numpy(state.sampling @ centers))
    np.testing.assert_allclose(state.sampling, optimum, atol=1e-4)
    assert quadratic(theta, target).item() < 1e-8


def test_descent_on_alignment_would_move_away_from_it() -> None:
    centers, target = [[1.0, 0.0], [0.0, 1.0]], [0.8, 0.2]
    theta, state = nn.Parameter(torch.tensor([0.5, 0.5], dtype=torch.float64)), uniform_state(2)
    for _ in range(20):
        state = Dga(eta=0.5, ema=1.0).propose(state, -align(theta, target, centers).scores)
    assert state.alpha[0] < 0.5
