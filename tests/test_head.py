"""The piecewise head equals the plain cross entropy, in value and in every gradient."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from trainer import head


def plain(hidden: Tensor, weight: Tensor, labels: Tensor) -> Tensor:
    return functional.cross_entropy((hidden @ weight.T).flatten(0, 1).float(), labels.flatten(), ignore_index=-100, reduction="sum")


def make(vocabulary: int = 50) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(3, 7, 8, generator=generator).requires_grad_()
    weight = torch.randn(vocabulary, 8, generator=generator).requires_grad_()
    labels = torch.randint(0, vocabulary, (3, 7), generator=generator)
    labels[0, 4:] = -100
    labels[2] = -100
    return hidden, weight, labels


@pytest.mark.parametrize("rows", [1, 4, 11, 1000])
def test_loss_and_gradients_equal_the_plain_ones(monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    monkeypatch.setitem(head.PIECE_ELEMENTS, "cpu", 50 * rows)
    hidden, weight, labels = make()
    expected = torch.autograd.grad(3 * plain(hidden, weight, labels), (hidden, weight))
    loss = head.head_loss_sum(hidden, weight, labels)
    torch.testing.assert_close(loss, plain(hidden, weight, labels))
    for found, wanted in zip(torch.autograd.grad(3 * loss, (hidden, weight)), expected, strict=True):
        torch.testing.assert_close(found, wanted)
    assert not expected[0][2].any()  # masked positions


def test_the_loss_by_hand() -> None:
    loss = head.head_loss_sum(torch.tensor([[1.0]]), torch.tensor([[0.0], [torch.log(torch.tensor(3.0))]]), torch.tensor([0]))
    assert loss.item() == pytest.approx(1.3862943611)  # probability 1/4: log 4


def test_nothing_but_masked_labels_costs_nothing() -> None:
    hidden, weight, labels = make()
    loss = head.head_loss_sum(hidden, weight, torch.full_like(labels, -100))
    loss.backward()
    assert loss.item() == 0
    assert not weight.grad.any()


def test_without_gradients_and_in_bfloat16() -> None:
    hidden, weight, labels = make()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        loss = head.head_loss_sum(hidden, weight, labels)
        assert not loss.requires_grad
        assert loss.dtype == torch.float32
        assert loss.item() == pytest.approx(plain(hidden, weight, labels).item(), rel=0.01)
