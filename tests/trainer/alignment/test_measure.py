"""The target's direction and the exact backend, on problems with known gradients."""

from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from tests.helpers.tiny_models import tiny_batch, tiny_engine, tiny_model
from trainer.alignment import Alignment, Direction
from trainer.alignment.direction import combined_direction, dots, gradients, target_direction
from trainer.alignment.exact import exact_alignment
from trainer.config import Training
from trainer.distributed import Team
from trainer.mixers import Observation, uniform_state
from trainer.mixers.dga import Dga
from trainer.model.engine import Engine
from trainer.model.head import Losses
from trainer.sampling.batches import Batch


class Quadratic(PreTrainedModel):
    """A model whose "sequences" are numbers of centres.

    The loss is 1/2 |theta - centre|^2, its gradient theta - centre.
    """

    def __init__(self, theta: list[float], centers: np.ndarray) -> None:
        super().__init__(PreTrainedConfig())
        self.theta = nn.Parameter(torch.tensor(theta, dtype=torch.float64))
        self.centers = torch.as_tensor(centers, dtype=torch.float64)

    def forward(
        self, inputs: Tensor, labels: Tensor, regularised: bool = False, owners: None = None
    ) -> Losses:
        sequences = 0.5 * ((self.theta - self.centers[inputs[:, 0]]) ** 2).sum(1)
        return Losses(sequences.sum(), sequences.detach()[:, None])


class Regression(PreTrainedModel):
    """A small network in fp64. Its gradients are shorter than 1, so that clipping has no effect."""

    def __init__(self) -> None:
        super().__init__(PreTrainedConfig())
        generator = torch.Generator().manual_seed(0)
        self.inputs, self.outputs = (
            torch.randn(32, size, generator=generator, dtype=torch.float64) for size in (3, 2)
        )
        self.first, self.second = (
            nn.Parameter(torch.randn(*size, generator=generator).double())
            for size in ((3, 5), (5, 2))
        )

    def forward(
        self, inputs: Tensor, labels: Tensor, regularised: bool = False, owners: None = None
    ) -> Losses:
        found = (self.inputs[inputs[:, 0]] @ self.first).tanh() @ self.second
        sequences = 0.05 * ((found - self.outputs[inputs[:, 0]]) ** 2).sum(1)
        return Losses(sequences.sum(), sequences.detach()[:, None])


def toy(theta: list[float], *centers: list[float]) -> Engine:
    problem = Quadratic(theta, np.array(centers))
    return Engine(problem, problem, Team(), Training())


def batch_of(*centers: int) -> Batch:
    numbers = torch.tensor(centers)[:, None]
    return Batch(numbers, torch.zeros_like(numbers), len(centers))


def align(engine: Engine, scores: str = "raw", members: list[Batch] | None = None) -> Alignment:
    """Return the alignment.

    The first centre is the target. The others are the members, unless given.
    """
    members = (
        [batch_of(i) for i in range(1, len(engine.loss.centers))] if members is None else members
    )
    direction = target_direction(engine, lambda: engine.backward(batch_of(0))[0])
    return exact_alignment(engine, direction, [lambda b=batch: b for batch in members], scores)


def propose(mixer: Dga, state, scores: np.ndarray):
    nothing = np.full_like(scores, np.nan)
    return mixer.propose(state, Observation(1, 100, nothing, scores, nothing, nothing, nothing))


def test_scores_by_hand() -> None:
    engine = toy(
        [3.0, 0.0], [0.0, -4.0], [2.0, 0.0], [3.0, 8.0]
    )  # target gradient (3, 4), members (1, 0) and (0, -8)
    found = align(engine)
    assert found.scores.tolist() == [3.0, -32.0]
    assert found.losses.tolist() == [0.5, 32.0]
    assert found.effective.tolist() == [1.0, 1.0]
    assert dict(found.shares) == {"theta": -14.5}
    assert engine.model.theta.grad is None


def test_the_direction_is_the_targets_gradient() -> None:
    engine = toy([3.0, 0.0], [0.0, -4.0])
    engine.model.theta.grad = torch.tensor(
        [100.0, 100.0], dtype=torch.float64
    )  # gradient of the last step
    found = target_direction(engine, lambda: engine.backward(batch_of(0))[0])
    assert (found.loss, found.norm, found.tensors["theta"].tolist()) == (12.5, 5.0, [3.0, 4.0])
    assert engine.model.theta.grad is None


def test_gradients_of_several_targets_are_added_at_one_norm() -> None:
    engine = toy([3.0, 0.0], [0.0, -4.0], [3.0, 0.5])  # gradients (3, 4) and (0, -0.5)
    objectives = [(0.75, partial(backward, engine, 0)), (0.25, partial(backward, engine, 1))]
    found = combined_direction(engine, objectives)
    norm = 0.75 * 5.0 + 0.25 * 0.5
    expected = norm * (0.75 * np.array([0.6, 0.8]) + 0.25 * np.array([0.0, -1.0]))
    assert found.tensors["theta"].tolist() == pytest.approx(expected)
    assert found.norm == pytest.approx(np.linalg.norm(expected))
    assert found.loss == pytest.approx(0.75 * 12.5 + 0.25 * 0.125)
    assert engine.model.theta.grad is None
    alone = combined_direction(engine, objectives[:1])
    assert (alone.loss, alone.norm) == (12.5, 5.0)


def test_a_target_without_a_gradient_adds_nothing() -> None:
    engine = toy([3.0, 0.0], [0.0, -4.0], [3.0, 0.0])
    objectives = [(0.5, partial(backward, engine, 0)), (0.5, partial(backward, engine, 1))]
    found = combined_direction(engine, objectives)
    assert found.tensors["theta"].tolist() == pytest.approx([2.5 * 0.3, 2.5 * 0.4])


def backward(engine: Engine, center: int) -> Tensor:
    return engine.backward(batch_of(center))[0]


def test_clipped_and_cosine_by_hand() -> None:
    engine = toy(
        [3.0, 0.0], [0.0, -4.0], [2.5, 0.0], [3.0, 8.0]
    )  # gradients (0.5, 0), short: not clipped; and (0, -8)
    np.testing.assert_allclose(align(engine, "clipped").scores, [0.3, -0.8], rtol=1e-12)
    np.testing.assert_allclose(align(engine, "cosine").scores, [0.6, -0.8], rtol=1e-12)
    np.testing.assert_allclose(align(engine, "normalised").scores, [1.5, -32.0], rtol=1e-12)


def test_a_zero_gradient_scores_zero() -> None:
    assert align(toy([3.0, 0.0], [0.0, 0.0], [3.0, 0.0]), "cosine").scores.tolist() == [0.0]


def test_the_gradient_of_the_last_step_is_not_added() -> None:
    engine = toy([3.0, 0.0], [0.0, -4.0], [2.0, 0.0], [3.0, 8.0])
    direction = target_direction(engine, lambda: engine.backward(batch_of(0))[0])
    engine.model.theta.grad = torch.tensor([100.0, 100.0], dtype=torch.float64)
    assert exact_alignment(
        engine, direction, [lambda: batch_of(1), lambda: batch_of(2)], "raw"
    ).scores.tolist() == [3.0, -32.0]


def test_errors_by_hand() -> None:
    engine = toy(
        [3.0, 0.0], [0.0, -4.0], [2.0, 0.0], [3.0, 8.0], [3.0, 0.0], [0.0, 0.0]
    )  # products 3, -32, 0, 9 with (3, 4)
    found = align(
        engine, members=[batch_of(1, 2, 3, 4), batch_of(1, 1, 4, 4, 3, 3, 3, 3), batch_of(2)]
    )
    assert found.scores == pytest.approx([-5.0, 3.0, -32.0])
    assert found.errors[0] == pytest.approx(np.std([3, -32, 0, 9], ddof=1) / 2)  # of a mean of four
    assert found.errors[1] == pytest.approx(
        np.std([3, 9, 0, 0], ddof=1) / 2
    )  # of a mean of four pairs
    assert np.isnan(found.errors[2])
    assert found.effective.tolist() == [4, 8, 1]
    assert np.isnan(align(engine, "clipped", [batch_of(1, 2, 3, 4)]).errors).all()


def test_errors_equal_the_spread_of_redrawn_scores() -> None:
    model = tiny_model()
    engine = tiny_engine(model)
    target = tiny_batch(8, seed=99)
    direction = target_direction(engine, lambda: engine.backward(target)[0])
    redrawn = exact_alignment(
        engine, direction, [lambda s=s: tiny_batch(8, seed=s) for s in range(60)], "raw"
    )
    assert np.sqrt((redrawn.errors**2).mean()) == pytest.approx(redrawn.scores.std(), rel=0.25)


def test_a_domain_equal_to_the_target_gains_weight() -> None:
    found = align(toy([0.0, 0.0], [1.0, 1.0], [1.0, 1.0], [-1.0, -1.0]))
    state = propose(Dga(eta=0.1, ema=1.0), uniform_state(2), found.scores)
    assert state.alpha[0] > 0.5 > state.alpha[1]


@pytest.mark.parametrize("kind", ["raw", "clipped"])
def test_the_mixed_scores_are_minus_the_derivative_of_the_target_loss(kind: str) -> None:
    problem = Regression()
    engine, parts, alpha = (
        Engine(problem, problem, Team(), Training()),
        [batch_of(*range(8 * i, 8 * i + 8)) for i in range(4)],
        [0.2, 0.5, 0.3],
    )
    direction = target_direction(engine, lambda: engine.backward(parts[3])[0])
    scores = exact_alignment(engine, direction, [lambda b=b: b for b in parts[:3]], kind).scores
    mixed: dict[str, Tensor] = {}
    for share, part in zip(alpha, parts, strict=False):
        engine.clear()
        engine.backward(part)
        for name, gradient in gradients(engine).items():
            mixed[name] = mixed.get(name, 0) + float(share) * gradient
    losses = []
    for moved in (-1, 2):
        with torch.no_grad():
            for name, p in engine.parameters().items():
                p.sub_(mixed[name], alpha=moved * 1e-4)
        losses.append(float(engine.losses(parts[3]).mean()))
    derivative = (
        losses[1] - losses[0]
    ) / 2e-4  # of the target loss, along a step of descent on the mixture
    assert np.dot(alpha, scores) == pytest.approx(-derivative, rel=1e-6)


def test_distributions_with_identity_rows_equal_domains_and_scores_are_linear() -> None:
    engine = toy([0.5, -2.0, 1.0], [1.0, 1.0, 1.0], [1.0, 0, 0], [0, 2.0, 0], [0, 0, 3.0])
    domains = align(engine).scores
    np.testing.assert_allclose(
        align(engine, members=[batch_of(1, 1), batch_of(2, 2), batch_of(3, 3)]).scores,
        domains,
        rtol=1e-12,
    )
    rows = align(engine, members=[batch_of(1, 1, 2, 2, 2, 3, 3, 3, 3, 3), batch_of(2)]).scores
    np.testing.assert_allclose(
        rows, np.array([[0.2, 0.3, 0.5], [0.0, 1.0, 0.0]]) @ domains, rtol=1e-12
    )


def test_permuting_the_members_permutes_the_weights() -> None:
    engine = toy([0.5, -2.0, 1.0], [1.0, 1.0, 1.0], [1.0, 0, 0], [0, 2.0, 0], [0, 0, 3.0])
    mixer, order = Dga(eta=0.5, ema=0.1), [2, 0, 1]
    plain, permuted = uniform_state(3), uniform_state(3)
    for _ in range(3):
        plain = propose(mixer, plain, align(engine, "clipped").scores)
        permuted = propose(
            mixer, permuted, align(engine, "clipped", [batch_of(1 + i) for i in order]).scores
        )
    np.testing.assert_allclose(permuted.sampling, plain.sampling[order], rtol=1e-12)


def test_dga_finds_the_known_optimum_of_a_quadratic_problem() -> None:
    # The target is 0.6 A + 0.3 B + 0.1 C of three domains in general position. Only training with
    # these weights reaches it.
    centers, optimum = (
        np.array([[2.0, 0, 1.0], [0, 2.0, -1.0], [-1.0, -1.0, 2.0]]),
        np.array([0.6, 0.3, 0.1]),
    )
    engine = toy([0.0, 0.0, 0.0], (optimum @ centers).tolist(), *centers.tolist())
    theta, mixer, state = engine.model.theta, Dga(eta=0.2, ema=0.5), uniform_state(3)
    for _ in range(400):
        state = propose(mixer, state, align(engine).scores)
        for _ in range(5):
            with torch.no_grad():
                theta -= 0.3 * (theta - torch.from_numpy(state.sampling @ centers))
    np.testing.assert_allclose(state.sampling, optimum, atol=1e-4)
    assert float(engine.losses(batch_of(0))) < 1e-8


def test_descent_on_alignment_moves_away_from_the_optimum() -> None:
    engine, state = toy([0.5, 0.5], [0.8, 0.2], [1.0, 0.0], [0.0, 1.0]), uniform_state(2)
    for _ in range(20):
        state = propose(Dga(eta=0.5, ema=1.0), state, -align(engine).scores)
    assert state.alpha[0] < 0.5


def preconditioned(
    theta: list[float], steps: list[list[float]], eps: float = 1e-8
) -> tuple[Engine, torch.optim.AdamW, Direction]:
    """Return the direction toward (0, -4) after AdamW received the gradients `steps`."""
    engine = toy(theta, [0.0, -4.0])
    optimizer = torch.optim.AdamW(engine.model.parameters(), lr=0.0, betas=(0.9, 0.75), eps=eps)
    for gradient in steps:
        engine.model.theta.grad = torch.tensor(gradient, dtype=torch.float64)
        optimizer.step()
    return (
        engine,
        optimizer,
        target_direction(engine, lambda: engine.backward(batch_of(0))[0], optimizer),
    )


def test_a_preconditioned_direction_by_hand() -> None:
    _, _, found = preconditioned(
        [3.0, 0.0], [[1.0, 2.0]], eps=0.5
    )  # v = (3, 4); the second moment is now (0.25, 1)
    moment = (0.75 * np.array([0.25, 1.0]) + 0.25 * np.array([9.0, 16.0])) / (1 - 0.75**2)
    expected = np.array([3.0, 4.0]) / (np.sqrt(moment) + 0.5)
    np.testing.assert_allclose(
        found.tensors["theta"].numpy(), expected * 5 / np.linalg.norm(expected), rtol=1e-12
    )
    assert found.norm == 5.0


def test_a_preconditioned_direction_is_the_step_of_adamw() -> None:
    engine, optimizer, found = preconditioned([3.0, 0.0], [[1.0, 2.0], [2.0, -1.0]])
    theta, moment = engine.model.theta, optimizer.state[engine.model.theta]["exp_avg"]
    moment.zero_()
    theta.grad, before = torch.tensor([3.0, 4.0], dtype=torch.float64), theta.detach().clone()
    optimizer.param_groups[0]["lr"] = 1.0
    optimizer.param_groups[0]["weight_decay"] = 0.0
    optimizer.step()
    stepped = before - theta.detach()
    torch.testing.assert_close(
        found.tensors["theta"], stepped * 5 / stepped.norm(), rtol=1e-10, atol=0
    )


def test_a_parameter_without_gradients_so_far_does_not_dominate() -> None:
    _, _, found = preconditioned([3.0, 0.0], [[1.0, 0.0]] * 50)
    along = found.tensors["theta"].abs()
    assert along[1] / along[0] < 2  # It would be 1e8 with the current moment.


def test_dots_count_missing_tensors_as_zero_and_add_up_in_fp64() -> None:
    ones = torch.full((2**20,), 1e-4)
    assert dots({"a": ones}, {"b": ones, "a": ones}).tolist() == pytest.approx(
        [0.0, 2**20 * float(ones[0].double()) ** 2], rel=1e-14
    )
