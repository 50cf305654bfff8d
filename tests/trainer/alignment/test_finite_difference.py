"""Finite differences: per-sequence slopes without a backward pass, and parameters that come back bit for bit."""

import pytest
import torch

from tests.helpers.tiny_models import tiny_batch, tiny_engine, tiny_model
from trainer.alignment import Direction
from trainer.alignment.direction import dots, gradients, target_direction
from trainer.alignment.finite_difference import finite_differences, halving_error
from trainer.model.engine import Engine, build_engine
from trainer.sampling.batches import Batch


def toward_a_target(engine: Engine) -> Direction:
    target = tiny_batch(9, seed=5)
    return target_direction(engine, lambda: engine.backward(target)[0])


def by_autograd(engine: Engine, direction: Direction, batch: Batch) -> torch.Tensor:
    """Each sequence's score, from a backward pass of its own."""
    scores = []
    for inputs, labels in zip(batch.inputs.split(1), batch.labels.split(1), strict=True):
        engine.clear()
        engine.backward(Batch(inputs, labels, 1))
        scores.append(dots(gradients(engine), direction.tensors).sum())
    engine.clear()
    return torch.stack(scores)


def off(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 5e-4), ("bfloat16", 0.2)])
@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_scores_are_each_sequences_slope(
    architecture: str, precision: str, tolerance: float
) -> None:
    """In bfloat16 it is rounding that is seen, of sequences of twelve tokens: longer ones average it."""
    exact = tiny_engine(tiny_model(architecture))
    direction, batch = toward_a_target(exact), tiny_batch(7)
    engine = tiny_engine(exact.model, micro=3, precision=precision)
    scores, losses = finite_differences(engine, direction, batch)
    assert off(scores, by_autograd(exact, direction, batch)) < tolerance
    torch.testing.assert_close(
        losses, exact.losses(batch), rtol=1e-2 if precision == "bfloat16" else 1e-4, atol=0
    )


def test_parameters_come_back_bit_for_bit() -> None:
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


def test_halving_the_step_shows_one_that_is_too_long_and_one_too_short(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine = tiny_engine(tiny_model())
    direction, errors = toward_a_target(engine), {}
    for step in (1e-6, 2e-4, 0.2):
        monkeypatch.setattr("trainer.alignment.finite_difference.STEP", {"float32": step})
        errors[step] = halving_error(engine, direction, tiny_batch())
    assert errors[2e-4] < 2e-3 < min(errors[1e-6], errors[0.2])


def test_a_direction_of_length_zero_scores_zero() -> None:
    engine = tiny_engine(tiny_model())
    direction = toward_a_target(engine)
    still = Direction(
        {name: torch.zeros_like(v) for name, v in direction.tensors.items()}, direction.loss, 0.0
    )
    assert finite_differences(engine, still, tiny_batch(3))[0].tolist() == [0.0] * 3


def test_a_process_without_a_sequence_scores_none() -> None:
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
    assert off(finite_differences(compiled, direction, batch)[0], expected) < 5e-4
