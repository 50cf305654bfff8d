"""Measurements on training batches: several of them are one sample."""

import numpy as np
import pytest
import torch

from tests.helpers.alignment_inputs import BASIS, settings, texts
from tests.helpers.tiny_models import tiny_engine, tiny_model
from trainer.alignment.direction import target_direction
from trainer.alignment.measure import backward_and_score, batch_alignment
from trainer.alignment.observe import measured_on_batches, score_batch
from trainer.evaluation.objectives import TextLoss
from trainer.sampling.plan import draw_interval, leaf_weights


@pytest.mark.parametrize("scores", ["raw", "target"])
def test_several_batches_are_one_sample_with_a_direction_each(scores: str) -> None:
    engine, inputs, config = tiny_engine(tiny_model()), texts(), settings("ghost", scores)
    objective = TextLoss(inputs.align, config.mixture.target_sequences, config.seed)
    vars(inputs).update(aims={config.target: objective})
    shares = config.mixture.target_shares(config.target)
    weights = leaf_weights(np.array([0.4, 0.3, 0.3]), BASIS.matrix)
    plan = draw_interval(
        0, weights, inputs.corpus.sequences, np.zeros(4, np.int64), draws=12, seed=0
    )
    optimizer = torch.optim.SGD(engine.parameters().values(), lr=0.1)
    flat, scored, norms, losses = [], [], [], []
    for step in range(3):
        own = plan.batch(step, 4, 0, 1)
        draws = plan.read(own)
        leaves, batch = draws.leaves, inputs.corpus.read(draws.leaves, draws.rows)
        direction = target_direction(engine, lambda step=step: objective.backward(engine, 3 + step))
        scored.append(backward_and_score(engine, direction, batch, leaves, "ghost")[1])
        norms.append(direction.norm)
        losses.append(direction.loss)
        flat.append(
            score_batch(engine, config, inputs, shares, 3 + step, batch, leaves, optimizer)[0]
        )
        optimizer.step()
    assert len(set(norms)) == 3
    found = measured_on_batches(engine.team, config, inputs, plan, np.stack(flat))
    expected = batch_alignment(engine.team, BASIS.matrix, plan.shares, scored)
    scale = 1 / np.square(norms).mean() if scores == "target" else 1.0
    np.testing.assert_allclose(found.alignment.scores, scale * expected.scores, rtol=1e-6)
    np.testing.assert_allclose(found.alignment.errors, scale * expected.errors, rtol=1e-6)
    np.testing.assert_array_equal(found.alignment.losses, expected.losses)
    np.testing.assert_array_equal(found.alignment.effective, expected.effective)
    assert found.target_loss == pytest.approx(np.mean(losses))
