"""The sequences that members are measured on: any, or those that the run would draw next."""

import numpy as np
import pytest
import torch

from data_catalog.format.distributions import Basis
from tests.helpers.alignment_inputs import BASIS, settings, texts, toward_target
from tests.helpers.tiny_models import tiny_engine, tiny_model
from trainer.alignment.direction import target_direction
from trainer.alignment.measure import (
    ScoredSequences,
    batch_alignment,
    measure_alignment,
    member_losses,
)
from trainer.alignment.probes import PooledSample, member_probes, members_probe, pooled_sample
from trainer.config import Train
from trainer.distributed import Team
from trainer.inputs import Inputs
from trainer.sampling.bounds import DrawBounds
from trainer.sampling.plan import Drawn, draw_interval

SEQUENCES = np.array([9, 5, 7, 6])  # of each leaf of `texts`
USED = np.array([4, 0, 10, 6])
WITHIN = np.array([9, 1, 14, 12])
"""Bounds of each leaf: 5, 1, 4 and 6 sequences are left."""


def changed(sequences: int = 6, backend: str = "exact", **mixture: object) -> Train:
    config = settings(backend, sequences=sequences)
    mixture = {"probes": "next", **mixture}
    return config.model_copy(update={"mixture": config.mixture.model_copy(update=mixture)})


def inputs_of(matrix: np.ndarray) -> Inputs:
    inputs = texts()
    names = tuple(f"member {i}" for i in range(len(matrix)))
    vars(inputs).update(basis=Basis(names, matrix))
    return inputs


def bounded(leaves: np.ndarray, used: np.ndarray = USED) -> Drawn:
    """Return a position in the data. Every leaf is a domain of its own, with one bound for both."""
    return Drawn(used, DrawBounds(leaves, leaves, 100))


def in_order(leaf: int, count: int | np.int64) -> list[int]:
    """Return the first rows that a run draws from a leaf."""
    plan = draw_interval(0, np.eye(4)[leaf], SEQUENCES, np.zeros(4, int), draws=int(count), seed=0)
    return plan.read().rows.tolist()


def rows_of(sample: PooledSample, leaf: int) -> list[int]:
    return sample.rows[sample.leaves == leaf].tolist()


def test_a_member_is_measured_on_the_sequences_that_would_be_drawn_next() -> None:
    inputs = inputs_of(np.eye(4))
    for leaf, probe in enumerate(member_probes(changed(5), inputs, 3, Drawn(USED))):
        rows = in_order(leaf, USED[leaf] + 5)[USED[leaf] :]
        expected = inputs.corpus.read(np.full(5, leaf), np.array(rows))
        assert probe().inputs.equal(expected.inputs)


def test_random_probes_repeat_what_was_drawn_and_next_ones_do_not() -> None:
    inputs, used = inputs_of(np.eye(4)), np.array([4, 2, 3, 3])
    config = changed(3)
    seen = [set(in_order(leaf, used[leaf])) for leaf in range(4)]
    repeated = {}
    for probes in ("random", "next"):
        config = changed(3, probes=probes)
        samples = [pooled_sample(config, inputs, i, Drawn(used)) for i in range(20)]
        repeated[probes] = sum(
            row in seen[leaf]
            for sample in samples
            for leaf in range(4)
            for row in rows_of(sample, leaf)
        )
    assert repeated["random"] > 50  # of 240
    assert repeated["next"] == 0


def test_members_that_share_a_leaf_are_measured_on_further_sequences_of_it() -> None:
    inputs, drawn = inputs_of(np.eye(4)[[0, 0]]), Drawn(np.array([2, 0, 0, 0]))
    sample = pooled_sample(changed(3), inputs, 1, drawn)
    assert rows_of(sample, 0) == in_order(0, 8)[2:]
    first, second = member_probes(changed(3), inputs, 1, drawn)
    assert first().inputs.equal(second().inputs)  # alone, each of them would draw the same


def test_bounds_leave_out_what_is_used_up() -> None:
    matrix = np.array([[0.5, 0.5, 0, 0], [0, 0.5, 0.5, 0], [0, 1.0, 0, 0]])
    drawn = bounded(np.array([9, 5, 7, 6]), np.array([0, 5, 0, 0]))
    sample = pooled_sample(changed(4), inputs_of(matrix), 1, drawn)
    np.testing.assert_allclose(sample.matrix, [[1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]])
    np.testing.assert_allclose(sample.density, [0.5, 0, 0.5, 0])
    assert sorted(sample.leaves.tolist()) == [0] * 4 + [2] * 4
    probes = member_probes(changed(4), inputs_of(matrix), 1, drawn)
    assert [probe is None for probe in probes] == [False, False, True]


def test_a_member_is_measured_on_no_more_than_is_left() -> None:
    sample = pooled_sample(changed(4), inputs_of(np.eye(4)[:3]), 1, bounded(WITHIN))
    assert np.bincount(sample.leaves).tolist() == [4, 1, 4]
    np.testing.assert_allclose(sample.density, np.array([4, 1, 4, 0]) / 9)


def test_the_pooled_estimate_is_that_of_the_projected_members() -> None:
    """Every sequence has the score of its leaf, so that the expected scores are known."""
    inputs, by_leaf = inputs_of(BASIS.matrix), torch.tensor([3.0, -1.0, 2.0, 5.0]).double()
    estimates = []
    for interval in range(400):
        sample = pooled_sample(changed(8), inputs, interval, bounded(WITHIN))
        ones = torch.ones(len(sample.leaves))
        scored = ScoredSequences(sample.leaves, ones.long(), ones, by_leaf[sample.leaves])
        found = batch_alignment(Team(), sample.matrix, sample.density, [scored])
        estimates.append(found.scores)
    assert not np.allclose(sample.matrix, BASIS.matrix, atol=0.05)
    np.testing.assert_allclose(
        np.mean(estimates, axis=0), sample.matrix @ by_leaf.numpy(), rtol=0.03
    )


@pytest.mark.parametrize("backend", ["exact", "ghost", "finite_difference"])
def test_a_member_without_sequences_has_no_score(backend: str) -> None:
    engine, inputs = tiny_engine(tiny_model()), inputs_of(np.eye(4))
    direction, used_up = (
        toward_target(engine),
        bounded(np.array([9, 5, 7, 6]), np.array([0, 5, 0, 0])),
    )
    config = changed(4, backend)
    found = measure_alignment(engine, direction, config, inputs, 1, used_up)
    assert np.isnan([found.scores[1], found.losses[1]]).all()
    assert found.effective.tolist() == [4, 0, 4, 4]
    others = [0, 2, 3]
    alone = measure_alignment(engine, direction, config, inputs_of(np.eye(4)[others]), 1, used_up)
    np.testing.assert_allclose(found.scores[others], alone.scores, rtol=1e-6)
    assert sum(found.shares.values()) == pytest.approx(sum(alone.shares.values()), rel=1e-6)
    losses = member_losses(engine, config, inputs, 1, used_up)
    np.testing.assert_allclose(losses, found.losses, rtol=1e-4)


@pytest.mark.parametrize("scores", ["raw", "clipped", "cosine"])
def test_doge_leaves_a_member_without_sequences_out_of_the_sum(scores: str) -> None:
    engine, used_up = tiny_engine(tiny_model()), bounded(SEQUENCES, np.array([0, 5, 0, 0]))
    config = changed(4, scores=scores, mixer="doge", toward="members")
    found = []
    for members in ([0, 1, 2, 3], [0, 2, 3]):
        inputs = inputs_of(np.eye(4)[members])
        toward = target_direction(engine, members_probe(engine, config, inputs, 1, used_up))
        found.append(measure_alignment(engine, toward, config, inputs, 1, used_up).scores)
    assert np.isnan(found[0][1])
    np.testing.assert_allclose(np.delete(found[0], 1), found[1], rtol=1e-6)
