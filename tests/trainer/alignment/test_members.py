"""Measurements of other mixers: the excess loss of DoReMi, and DoGE's sum of the other members."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from data_catalog.format.distributions import Basis
from tests.helpers.alignment_inputs import settings, texts
from tests.helpers.tiny_models import tiny_engine, tiny_model
from trainer.alignment import Alignment
from trainer.alignment.direction import target_direction
from trainer.alignment.measure import measure_alignment, member_excess, member_losses
from trainer.alignment.observe import observe
from trainer.alignment.probes import member_probes, members_probe
from trainer.config import Train
from trainer.inputs import Inputs
from trainer.model.engine import Engine
from trainer.sampling.batches import Batch


def disjoint_texts() -> Inputs:
    """Return inputs whose members are three single leaves, so that a sequence belongs to one."""
    inputs = texts()
    vars(inputs).update(basis=Basis(("a", "b", "c"), np.eye(4)[:3]))
    return inputs


def plain_losses(engine: Engine, batch: Batch) -> torch.Tensor:
    """Return the loss of every token by the model's own logits."""
    with torch.no_grad():
        logits = engine.model(input_ids=batch.inputs).logits
    return functional.cross_entropy(logits.transpose(1, 2), batch.labels, reduction="none")


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])  # with and without the fused head
def test_the_excess_loss_is_clipped_token_by_token(architecture: str) -> None:
    engine, reference = (
        tiny_engine(tiny_model(architecture, seed=seed), micro=2) for seed in (0, 5)
    )
    inputs = disjoint_texts()
    losses, excess = member_excess(engine, reference, settings(), inputs, 3)
    for member, probe in enumerate(member_probes(settings(), inputs, 3)):
        batch = probe()
        own, other = (plain_losses(model, batch) for model in (engine, reference))
        above = (own - other).clamp_min(0).sum() / batch.total
        assert losses[member] == pytest.approx(float(own.sum()) / batch.total, rel=1e-5)
        assert excess[member] == pytest.approx(float(above), rel=1e-5)
        assert excess[member] > 1.5 * max(float((own - other).sum()) / batch.total, 0.0)
    np.testing.assert_array_equal(member_losses(engine, settings(), inputs, 3), losses)


def test_a_model_has_no_excess_over_itself_and_doremi_is_given_the_excess() -> None:
    engine, reference = tiny_engine(tiny_model()), tiny_engine(tiny_model(seed=5))
    optimizer = torch.optim.AdamW(engine.parameters().values())
    for other in (engine, reference):
        found = observe({"excess_losses"}, engine, other, settings(), texts(), {}, 1, optimizer)
        seen = found.observation(1, 10, np.ones(3))
        assert (seen.excess_losses > 0).all() == (other is reference)
        assert "excess_losses" in found.record()
    assert (
        "excess_losses"
        not in observe({"losses"}, engine, None, settings(), texts(), {}, 1, optimizer).record()
    )


def toward_members(scores: str) -> Train:
    doge = settings("exact", scores).mixture.model_copy(
        update={"mixer": "doge", "toward": "members"}
    )
    return settings().model_copy(update={"mixture": doge})


def measured(engine: Engine, scores: str) -> Alignment:
    config, inputs = toward_members(scores), texts()
    direction = target_direction(engine, members_probe(engine, config, inputs, 2))
    return measure_alignment(engine, direction, config, inputs, 2)


@pytest.mark.parametrize("scores", ["raw", "clipped", "cosine"])
def test_a_member_is_compared_with_the_sum_of_the_others(scores: str) -> None:
    """Every gradient is taken alone, and the matrix of their products is computed.

    A score is the sum of a row without the diagonal, as in the released code of DoGE
    (github.com/Olivia-fsm/DoGE, src/trainer.py at 88400e9, `scores_mat.sum - scores_mat.diag`).
    """
    engine = tiny_engine(tiny_model())
    rows = []
    for probe in member_probes(toward_members(scores), texts(), 2):
        engine.clear()
        engine.backward(probe())
        rows.append(torch.cat([p.grad.flatten() for p in engine.parameters().values()]).double())
    found = measured(engine, scores)
    each = torch.stack(rows)
    others = each.sum(0) - each
    if scores == "raw":
        products = each @ each.T
        expected = products.sum(1) - products.diag()
        assert sum(found.shares.values()) == pytest.approx(found.scores.mean(), rel=1e-9)
    elif scores == "clipped":
        each, others = (g / g.norm(dim=1, keepdim=True).clamp_min(1.0) for g in (each, others))
        expected = (each * others).sum(1)
    else:
        expected = functional.cosine_similarity(each, others)
    np.testing.assert_allclose(found.scores, expected.numpy(), rtol=1e-5)
    assert np.isnan(found.errors).all()
