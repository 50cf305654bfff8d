"""The fused head equals the plain cross entropy in value, gradients and slopes per sequence."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from trainer.model import head


def plain(hidden: Tensor, weight: Tensor, labels: Tensor) -> Tensor:
    """Return the sum of each sequence."""
    return functional.cross_entropy(
        (hidden @ weight.T).transpose(1, 2).float(), labels, ignore_index=-100, reduction="none"
    ).sum(1)


def make(vocabulary: int = 50) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(3, 7, 8, generator=generator).requires_grad_()
    weight = torch.randn(vocabulary, 8, generator=generator).requires_grad_()
    labels = torch.randint(0, vocabulary, (3, 7), generator=generator)
    labels[0, 4:] = -100
    labels[2] = -100
    return hidden, weight, labels


@pytest.mark.parametrize("rows", [1, 4, 11, 1000])
def test_losses_and_gradients_equal_the_plain_ones(
    monkeypatch: pytest.MonkeyPatch, rows: int
) -> None:
    monkeypatch.setitem(head.LOGITS_PER_PIECE, "cpu", 50 * rows)
    hidden, weight, labels = make()
    expected = torch.autograd.grad(3 * plain(hidden, weight, labels).sum(), (hidden, weight))
    losses = head.head_loss(hidden, weight, labels)
    torch.testing.assert_close(losses.total, plain(hidden, weight, labels).sum())
    torch.testing.assert_close(losses.sequences, plain(hidden, weight, labels).detach())
    assert (losses.tokens != 0).equal(labels != -100)
    by_token = functional.cross_entropy(hidden[1] @ weight.T, labels[1], reduction="none")
    torch.testing.assert_close(losses.tokens[1], by_token.detach())
    for found, wanted in zip(
        torch.autograd.grad(3 * losses.total, (hidden, weight)), expected, strict=True
    ):
        torch.testing.assert_close(found, wanted)
    assert not expected[0][2].any()  # masked positions


@pytest.mark.parametrize("rows", [4, 1000])
def test_slopes_equal_the_product_with_each_sequences_gradient(
    monkeypatch: pytest.MonkeyPatch, rows: int
) -> None:
    monkeypatch.setitem(head.LOGITS_PER_PIECE, "cpu", 50 * rows)
    hidden, weight, labels = make()
    along = torch.randn(weight.shape, generator=torch.Generator().manual_seed(1))
    gradients = [
        torch.autograd.grad(loss, weight, retain_graph=True)[0]
        for loss in plain(hidden, weight, labels)
    ]
    with head.head_slopes(lambda: along) as slopes:
        losses = head.head_loss(hidden, weight, labels)
        with torch.no_grad():
            head.head_loss(hidden, weight, labels)  # an evaluation, say
    head.head_loss(hidden, weight, labels)
    [found] = slopes.slopes
    torch.testing.assert_close(
        found, torch.stack([(g * along).sum() for g in gradients]).double(), rtol=1e-5, atol=1e-6
    )
    torch.testing.assert_close(torch.autograd.grad(losses.total, weight)[0], sum(gradients))


@pytest.mark.parametrize("rows", [4, 1000])
def test_the_z_loss_adds_the_squares_of_the_normalisers(
    monkeypatch: pytest.MonkeyPatch, rows: int
) -> None:
    monkeypatch.setitem(head.LOGITS_PER_PIECE, "cpu", 50 * rows)
    hidden, weight, labels = make()

    def with_z() -> Tensor:
        normalisers = (hidden @ weight.T).logsumexp(2)[labels != -100]
        return plain(hidden, weight, labels).sum() + 0.3 * normalisers.square().sum()

    expected = torch.autograd.grad(2 * with_z(), (hidden, weight))
    losses = head.head_loss(hidden, weight, labels, 0.3)
    torch.testing.assert_close(losses.total, with_z())
    torch.testing.assert_close(losses.sequences, plain(hidden, weight, labels).detach())
    found = torch.autograd.grad(2 * losses.total, (hidden, weight))
    torch.testing.assert_close(found, expected)


def test_the_loss_by_hand() -> None:
    weight = torch.tensor([[0.0], [torch.log(torch.tensor(3.0))]])
    losses = head.head_loss(torch.ones(1, 1, 1), weight, torch.tensor([[0]]))
    assert losses.total.item() == pytest.approx(1.3862943611)  # probability 1/4: log 4
    assert losses.sequences.tolist() == [losses.total.item()]


def test_only_masked_labels_give_loss_zero() -> None:
    hidden, weight, labels = make()
    losses = head.head_loss(hidden, weight, torch.full_like(labels, -100))
    losses.total.backward()
    assert losses.total.item() == 0
    assert not losses.sequences.any()
    assert not weight.grad.any()


def test_without_gradients_and_in_bfloat16() -> None:
    hidden, weight, labels = make()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        losses = head.head_loss(hidden, weight, labels)
        assert not losses.total.requires_grad
        assert losses.total.dtype == torch.float32
        assert losses.total.item() == pytest.approx(
            plain(hidden, weight, labels).sum().item(), rel=0.01
        )
