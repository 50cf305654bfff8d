"""Learning rates and weight decay, by hand."""

import copy

import pytest
import torch
from torch import nn

from trainer.config import Finetune, Optimizer
from trainer.model.optimizer import (
    build_optimizer,
    learning_rate,
    muon_step,
    set_learning_rate,
)


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


class Tied(nn.Module):
    """An embedding, a layer, and an output layer with the embedding's weight."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.layer = nn.Embedding(6, 4), nn.Linear(4, 4)
        self.head = nn.Linear(4, 6, bias=False)
        self.head.weight = self.embedding.weight

    def get_output_embeddings(self) -> nn.Module:
        return self.head


@pytest.mark.parametrize("decay_embeddings", [False, True])
def test_embeddings_decay_only_on_request(decay_embeddings: bool) -> None:
    model = Tied()
    optimizer = build_optimizer(model, Optimizer(decay_embeddings=decay_embeddings))
    decay = {
        id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]
    }
    assert decay[id(model.layer.weight)] == 0.1
    assert decay[id(model.layer.bias)] == 0.0
    assert decay[id(model.embedding.weight)] == (0.1 if decay_embeddings else 0.0)


def test_muon_has_the_matrices_of_layers_and_adamw_the_rest() -> None:
    """Each part takes the step that torch's own optimizer takes alone."""
    torch.manual_seed(0)
    model = Tied()
    alone = copy.deepcopy(model)
    settings = Optimizer(kind="muon", learning_rate=0.01, weight_decay=0.5)
    optimizer = build_optimizer(model, settings)
    muon = torch.optim.Muon(
        [alone.layer.weight], lr=0.01, weight_decay=0.5, adjust_lr_fn="match_rms_adamw"
    )
    adamw = torch.optim.AdamW(
        [alone.embedding.weight, alone.layer.bias], lr=0.01, betas=(0.9, 0.95), weight_decay=0.0
    )
    for step in range(3):
        for one, other in zip(model.parameters(), alone.parameters(), strict=True):
            one.grad = torch.randn_like(one)
            other.grad = one.grad.clone()
        set_learning_rate(optimizer, 0.01 / (step + 1))
        for part in (muon, adamw):
            set_learning_rate(part, 0.01 / (step + 1))
            part.step()
        optimizer.step()
    for one, other in zip(model.parameters(), alone.parameters(), strict=True):
        # Alone, it iterates in bfloat16.
        torch.testing.assert_close(one, other, rtol=0.01, atol=2e-4)
    assert set(optimizer.state[model.layer.weight]) == {"momentum_buffer"}
    assert set(optimizer.state[model.layer.bias]) == {"step", "exp_avg", "exp_avg_sq"}


def test_a_step_of_muon_is_orthogonal_and_as_large_as_that_of_adamw() -> None:
    gradient = torch.randn(8, 32, generator=torch.Generator().manual_seed(0))
    step = muon_step(gradient)
    values = torch.linalg.svdvals(step) / (0.2 * 32**0.5)
    assert ((values > 0.6) & (values < 1.3)).all()
    torch.testing.assert_close(muon_step(7 * gradient), step, rtol=0.02, atol=0.02)


@pytest.mark.parametrize(
    ("schedule", "shares", "expected"),
    [
        ("cosine", {"final_share": 0.0}, {0: 1.0, 5: 0.5, 10: 0.0}),
        ("wsd", {"decay_share": 0.5}, {5: 1.0, 6: 0.8, 9: 0.2}),
        ("wsd", {"decay_share": 0.5, "final_share": 0.5}, {5: 1.0, 6: 0.9, 9: 0.6}),
    ],
)
def test_shares_of_a_schedule(
    schedule: str, shares: dict[str, float], expected: dict[int, float]
) -> None:
    settings = Optimizer.model_validate(
        {"learning_rate": 1.0, "warmup_steps": 0, "schedule": schedule, **shares}
    )
    assert {step: learning_rate(settings, step, 10) for step in expected} == pytest.approx(expected)


def test_muon_iterates_in_float32_on_a_processor() -> None:
    gradient = torch.randn(8, 12, generator=torch.Generator().manual_seed(0))
    x = gradient.double() / gradient.double().norm()
    for _ in range(5):  # Newton-Schulz, with torch's coefficients
        gram = x @ x.T
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    expected = x * 0.2 * 12**0.5
    torch.testing.assert_close(muon_step(gradient).double(), expected, rtol=1e-4, atol=1e-5)
