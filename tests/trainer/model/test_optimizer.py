"""Learning rates and weight decay, by hand."""

import pytest
import torch
from torch import nn

from trainer.config import Finetune, Optimizer
from trainer.model.optimizer import build_optimizer, learning_rate, set_learning_rate


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", {0: 0.25, 1: 0.5, 3: 1.0, 4: 1.0, 13: 1.0}),
        (
            "cosine",
            {0: 0.25, 3: 1.0, 4: 1.0, 9: 0.55, 14: 0.1, 20: 0.1},
        ),  # halfway between 4 and 14: 0.1 + 0.9 / 2
        (
            "wsd",
            {0: 0.25, 3: 1.0, 10: 1.0, 11: 1.0, 12: 2 / 3, 13: 1 / 3},
        ),  # a fifth of 14 is 3 steps
    ],
)
def test_rates_by_hand(schedule: str, expected: dict[int, float]) -> None:
    settings = Optimizer.model_validate(
        {"learning_rate": 1.0, "warmup_steps": 4, "schedule": schedule}
    )
    assert {step: learning_rate(settings, step, 14) for step in expected} == pytest.approx(expected)


def test_cosine_at_a_third() -> None:
    settings = Optimizer(learning_rate=2.0, warmup_steps=0, schedule="cosine")
    assert learning_rate(settings, 3, 9) == pytest.approx(
        2.0 * (0.1 + 0.9 * 0.75)
    )  # (1 + cos 60 degrees) / 2


def test_a_second_phase_has_its_own_rates() -> None:
    settings = Finetune(steps=10, learning_rate=1e-3, warmup_steps=2, schedule="wsd")
    assert [learning_rate(settings, step, 10) for step in (0, 1, 8, 9)] == pytest.approx(
        [5e-4, 1e-3, 1e-3, 5e-4]
    )


def test_the_rate_only_rises_if_the_warmup_is_longer_than_the_run() -> None:
    settings = Optimizer(learning_rate=1.0, warmup_steps=10)
    assert [learning_rate(settings, step, 3) for step in range(3)] == pytest.approx([0.1, 0.2, 0.3])


def test_one_step_by_hand() -> None:
    """AdamW's first step is the learning rate times the sign of the gradient.

    Only matrices decay.
    """
    model = nn.Linear(1, 1)
    with torch.no_grad():
        model.weight.fill_(2.0)
        model.bias.fill_(2.0)
    optimizer = build_optimizer(model, Optimizer(weight_decay=0.5))
    model.weight.grad, model.bias.grad = (
        torch.full_like(model.weight, 3.0),
        torch.full_like(model.bias, -3.0),
    )
    set_learning_rate(optimizer, 0.1)
    optimizer.step()
    assert model.weight.item() == pytest.approx(2.0 - 0.1 * 0.5 * 2.0 - 0.1)
    assert model.bias.item() == pytest.approx(2.0 + 0.1)


def test_frozen_parameters_are_not_optimized() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model[0].requires_grad_(False)
    owned = [
        p for group in build_optimizer(model, Optimizer()).param_groups for p in group["params"]
    ]
    assert [id(p) for p in owned] == [id(model[1].weight), id(model[1].bias)]
