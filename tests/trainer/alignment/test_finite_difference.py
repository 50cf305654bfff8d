"""Finite differences: slopes without a backward pass, and exactly restored parameters."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from data_catalog.errors import UserError
from data_catalog.format.tokens import IGNORED
from tests.helpers.rounding import TRUNCATION, rounding_error, step_length
from tests.helpers.tiny_experts import tiny_experts
from tests.helpers.tiny_models import TOKENS, tiny_batch, tiny_engine, tiny_model
from trainer.alignment import Direction
from trainer.alignment.direction import dots, gradients, target_direction
from trainer.alignment.finite_difference import (
    RELATIVE_STEP,
    check_differences,
    doubling_error,
    finite_differences,
)
from trainer.config import Training
from trainer.distributed import Team
from trainer.model.engine import Engine, build_engine
from trainer.model.head import Losses
from trainer.sampling.batches import Batch

# The noise of the difference of two losses is sqrt(2) times that of one. It is divided by 2 e,
# which gives 0.7 times the noise over e. Over forty sequences, with several models and processors,
# it was 0.5 to 0.9 times.
NOISES = 2


def toward_a_target(engine: Engine) -> Direction:
    target = tiny_batch(9, seed=5)
    return target_direction(engine, lambda: engine.backward(target)[0])


def by_autograd(engine: Engine, direction: Direction, batch: Batch) -> torch.Tensor:
    """Return each sequence's score from its own backward pass."""
    scores = []
    for inputs, labels in zip(batch.inputs.split(1), batch.labels.split(1), strict=True):
        engine.clear()
        engine.backward(Batch(inputs, labels, 1))
        scores.append(dots(gradients(engine), direction.tensors).sum())
    engine.clear()
    return torch.stack(scores)


def relative_error(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_scores_are_each_sequences_slope(architecture: str) -> None:
    engine = tiny_engine(tiny_model(architecture), micro=3)
    direction, batch = toward_a_target(engine), tiny_batch(7)
    scores, losses = finite_differences(engine, direction, batch)
    expected, rounding = (
        by_autograd(engine, direction, batch),
        rounding_error(engine, direction, losses),
    )
    assert (scores - expected).norm() < TRUNCATION * expected.norm() + rounding.norm()
    torch.testing.assert_close(losses, engine.losses(batch), rtol=1e-4, atol=0)


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_errors_in_bfloat16_are_the_noise_of_the_losses(architecture: str) -> None:
    """The noise is measured at the same point. Processors sum bfloat16 products differently."""
    exact = tiny_engine(tiny_model(architecture))
    direction, batch = toward_a_target(exact), tiny_batch(40)
    engine = tiny_engine(exact.model, micro=3, precision="bfloat16")
    scores, losses = finite_differences(engine, direction, batch)
    expected = by_autograd(exact, direction, batch)
    noise = (engine.losses(batch) - exact.losses(batch)).norm()
    assert 0 < noise < 1e-3 * exact.losses(batch).norm()
    error = NOISES * noise / step_length(engine, direction)
    assert (scores - expected).norm() < 1e-2 * expected.norm() + error
    torch.testing.assert_close(losses, exact.losses(batch), rtol=1e-2, atol=0)


class DoubleLoss(nn.Module):
    """The loss of a model in float64. `LanguageLoss` computes logits and losses in float32."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(
        self,
        inputs: torch.Tensor,
        labels: torch.Tensor,
        regularised: bool = False,
        owners: None = None,
    ) -> Losses:
        logits = self.model(input_ids=inputs, use_cache=False).logits.transpose(1, 2)
        tokens = functional.cross_entropy(logits, labels, ignore_index=IGNORED, reduction="none")
        return Losses(tokens.sum(), tokens.detach())


def test_without_rounding_the_error_is_quadratic_in_the_step() -> None:
    """This also checks the truncation bound of the float32 tests.

    GPT-2 is used because Llama's norms are float32.
    """
    model = tiny_model("gpt2").double()
    training = Training(precision="float32", sequence_tokens=TOKENS)
    engine = Engine(model, DoubleLoss(model), Team(), training)
    direction, batch = toward_a_target(engine), tiny_batch(7)
    expected, step = by_autograd(engine, direction, batch), RELATIVE_STEP["float32"]
    whole, half = (
        finite_differences(engine, direction, batch, size)[0] for size in (step, step / 2)
    )
    assert relative_error(whole, expected) < TRUNCATION
    assert relative_error(half, expected) == pytest.approx(
        relative_error(whole, expected) / 4, rel=1e-2
    )
    assert relative_error((4 * half - whole) / 3, expected) < 1e-3 * relative_error(whole, expected)


def test_parameters_are_restored_exactly() -> None:
    engine = tiny_engine(tiny_model())
    direction = toward_a_target(engine)
    before = {name: p.detach().clone() for name, p in engine.model.named_parameters()}
    finite_differences(engine, direction, tiny_batch())
    assert all(torch.equal(p, before[name]) for name, p in engine.model.named_parameters())
    with pytest.raises(IndexError):
        finite_differences(
            engine, direction, Batch(tiny_batch().inputs + 1000, tiny_batch().labels, 1)
        )  # words that do not exist
    assert all(torch.equal(p, before[name]) for name, p in engine.model.named_parameters())
    assert all(p.grad is None for p in engine.model.parameters())


def test_doubling_error_detects_a_step_that_is_too_long_or_too_short(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine = tiny_engine(tiny_model())
    direction, errors = toward_a_target(engine), {}
    for step in (1e-6, 2e-4, 0.2):
        monkeypatch.setattr("trainer.alignment.finite_difference.RELATIVE_STEP", {"float32": step})
        errors[step] = doubling_error(engine, direction, tiny_batch())
    assert errors[2e-4] < 1e-2 < min(errors[1e-6], errors[0.2])


def test_differences_of_a_loss_with_jumps_are_refused_at_the_first_update() -> None:
    engine = tiny_engine(tiny_model())
    direction = toward_a_target(engine)
    check_differences(engine, direction, tiny_batch())
    experts = tiny_engine(tiny_experts())
    with pytest.raises(UserError, match=r'"finite_difference": .* error of .*"ghost"'):
        check_differences(experts, toward_a_target(experts), tiny_batch(16))
    # The error is measured once in a process.
    check_differences(experts, toward_a_target(experts), tiny_batch(16))


def test_a_direction_of_length_zero_scores_zero() -> None:
    engine = tiny_engine(tiny_model())
    direction = toward_a_target(engine)
    still = Direction(
        {name: torch.zeros_like(v) for name, v in direction.tensors.items()}, direction.loss, 0.0
    )
    assert finite_differences(engine, still, tiny_batch(3))[0].tolist() == [0.0] * 3


def test_a_process_without_sequences_has_no_scores() -> None:
    engine, empty = tiny_engine(tiny_model()), tiny_batch(2)
    found = finite_differences(
        engine, toward_a_target(engine), Batch(empty.inputs[:0], empty.labels[:0], empty.total)
    )
    assert [tensor.tolist() for tensor in found] == [[], []]


@pytest.mark.slow
def test_compiled_layers_have_the_same_slopes() -> None:
    plain = tiny_engine(tiny_model())
    direction, batch = toward_a_target(plain), tiny_batch()
    expected = by_autograd(plain, direction, batch)
    compiled = build_engine(
        plain.model, plain.training.model_copy(update={"compile": True}), plain.team
    )
    scores, losses = finite_differences(compiled, direction, batch)
    rounding = rounding_error(compiled, direction, losses)
    assert (scores - expected).norm() < TRUNCATION * expected.norm() + rounding.norm()
