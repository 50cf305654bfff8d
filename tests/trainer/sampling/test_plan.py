"""The plan has exact counts, every sequence once per epoch, and one stream for all world sizes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.sampling.permutation import permutation_key, permute
from trainer.sampling.plan import draw_interval, interval_counts, leaf_weights, next_rows

SEQUENCES = np.array([7, 0, 1, 20])
WEIGHTS = np.array([0.5, 0.0, 0.1, 0.4])


def run(stages: int, draws: int = 24, weights: np.ndarray = WEIGHTS, seed: int = 0) -> list:
    plans, used = [], np.zeros(4, np.int64)
    for stage in range(stages):
        plans.append(draw_interval(stage, weights, SEQUENCES, used, draws=draws, seed=seed))
        used = used + plans[-1].counts(draws)
    return plans


def test_counts_sum_exactly_and_are_within_one_of_their_share() -> None:
    for stage in range(200):
        counts = interval_counts(WEIGHTS, 24, 0, stage)
        assert counts.sum() == 24
        assert (np.abs(counts - WEIGHTS * 24) < 1).all()


def test_counts_are_unbiased() -> None:
    mean = np.mean(
        [interval_counts(np.array([0.003, 0.247, 0.75]), 10, 0, stage) for stage in range(4000)],
        axis=0,
    )
    np.testing.assert_allclose(mean, [0.03, 2.47, 7.5], atol=0.03)  # standard error at most 0.008


def test_integer_shares_are_exact() -> None:
    assert interval_counts(np.array([0.25, 0.5, 0.0, 0.25]), 8, 0, 0).tolist() == [2, 4, 0, 2]


def test_a_leaf_without_weight_is_never_drawn_even_at_the_end() -> None:
    weights = np.array([0.0, 0.1, 0.2, 0.3, 0.4, 0.0]) / 3  # need not sum to 1
    for stage in range(300):
        counts = interval_counts(weights, 1000, 1, stage)
        assert counts[[0, 5]].tolist() == [0, 0]
        assert counts.sum() == 1000


def test_many_leaves_and_many_draws_still_sum_exactly() -> None:
    weights = np.random.Generator(np.random.Philox(key=1)).random(262_144) ** 8
    for stage in range(3):
        assert interval_counts(weights, 25_600, 0, stage).sum() == 25_600


def test_each_epoch_of_a_leaf_draws_each_of_its_sequences_once() -> None:
    drawn: dict[tuple[int, int], list[int]] = {}
    for plan in (interval.read() for interval in run(10)):
        for leaf, row, epoch in zip(
            plan.leaves.tolist(), plan.rows.tolist(), plan.epochs.tolist(), strict=True
        ):
            drawn.setdefault((leaf, epoch), []).append(row)
    assert sorted(drawn[(0, 0)]) == sorted(drawn[(0, 5)]) == list(range(7))
    assert sorted(drawn[(3, 0)]) == list(range(20))
    assert drawn[(2, 0)] == drawn[(2, 1)] == [0]
    assert drawn[(0, 0)] != drawn[(0, 1)]
    assert all(leaf != 1 for leaf, _ in drawn)


def test_the_uses_of_a_leaf_are_in_the_order_of_sequence_numbers() -> None:
    plan = run(1)[0].read()
    assert plan.epochs[plan.leaves == 0].tolist() == [0] * 7 + [1] * 5


@pytest.mark.parametrize("world", [1, 2, 3])
def test_the_stream_does_not_depend_on_the_number_of_ranks(world: int) -> None:
    plan = run(1)[0]
    parts = [
        plan.read(plan.batch(step, 8, rank, world)).rows
        for step in range(3)
        for rank in range(world)
    ]
    assert np.concatenate(parts).tolist() == plan.read().rows.tolist()


@pytest.mark.parametrize("block", [1, 5, 24, 100])
def test_blocks_are_pieces_of_one_interval(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compared with an order and rows that are computed for the whole interval at once."""
    monkeypatch.setattr("trainer.sampling.plan.BLOCK_DRAWS", block)
    used = np.array([40, 0, 9, 30])
    plan = draw_interval(3, WEIGHTS, SEQUENCES, used, draws=53, seed=2)
    counts = interval_counts(WEIGHTS, 53, 2, 3)
    order = permute(np.arange(53, dtype=np.uint64), np.uint64(53), permutation_key(2, "order", 3))
    leaves = np.repeat(np.arange(4), counts)[order.astype(np.int64)]
    rows, epochs = next_rows(leaves, SEQUENCES, used, 2)
    for part in (slice(30, 41), slice(0, 8), slice(50, 60), slice(41, 41), slice(None)):
        read = plan.read(part)
        assert read.leaves.tolist() == leaves[part].tolist()
        assert read.rows.tolist() == rows[part].tolist()
        assert read.epochs.tolist() == epochs[part].tolist()
    for draws in (0, 1, 26, 53):
        assert plan.counts(draws).tolist() == np.bincount(leaves[:draws], minlength=4).tolist()


def test_the_stream_is_a_function_of_seed_and_weights() -> None:
    first, second, third = (run(2, seed=seed)[1].read() for seed in (0, 0, 1))
    assert first.rows.tolist() == second.rows.tolist()
    assert first.leaves.tolist() != third.leaves.tolist()


def test_new_weights_apply_from_the_first_sequence_of_their_interval() -> None:
    plan = draw_interval(
        3, np.array([0, 0, 0, 1.0]), SEQUENCES, np.array([40, 0, 9, 30]), draws=24, seed=0
    ).read()
    assert set(plan.leaves.tolist()) == {3}
    assert plan.epochs[0] == 1  # draw 30 of a leaf of 20


def test_weight_on_an_empty_leaf_is_refused() -> None:
    with pytest.raises(ValueError, match="draw_interval"):
        run(1, weights=np.array([0.0, 1.0, 0.0, 0.0]))


def test_leaf_weights_are_the_mixture_of_the_rows() -> None:
    matrix = np.array([[0.5, 0.5, 0.0], [0.0, 0.25, 0.75]])
    assert leaf_weights(np.array([0.25, 0.75]), matrix).tolist() == [0.125, 0.3125, 0.5625]


@settings(max_examples=100)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([0, 1, 1, 2, 5, 40]), st.sampled_from([0.0, 1e-300, 1e-12, 0.01, 1.0])
        ),
        min_size=1,
        max_size=12,
    ),
    st.lists(st.integers(1, 30), min_size=1, max_size=5),
    st.integers(0, 9),
)
def test_a_sequence_repeats_only_when_its_leafs_epoch_is_over(
    leaves: list[tuple[int, float]], stages: list[int], seed: int
) -> None:
    """Includes empty leaves, leaves with one sequence, weights of 1e-300 and a single weight."""
    sequences = np.array([size for size, _ in leaves])
    weights = np.array([weight if size else 0.0 for size, weight in leaves])
    if not weights.any():
        return
    used, drawn = np.zeros(len(leaves), np.int64), []
    for stage, draws in enumerate(stages):
        plan = draw_interval(stage, weights, sequences, used, draws=draws, seed=seed)
        new = plan.read()
        drawn += list(zip(new.leaves.tolist(), new.epochs.tolist(), new.rows.tolist(), strict=True))
        used = used + plan.counts(draws)
    assert len(drawn) == sum(stages) == len(set(drawn))
    for leaf, epoch, row in drawn:
        assert 0 <= row < sequences[leaf]
        assert weights[leaf] > 0
        assert (
            epoch == 0
            or sum(one == leaf and at == epoch - 1 for one, at, _ in drawn) == sequences[leaf]
        )
