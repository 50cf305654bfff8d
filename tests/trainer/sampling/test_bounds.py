"""Bounds are never exceeded and take effect gradually. The projection is the nearest point."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_catalog.errors import UserError
from trainer.config import Data
from trainer.sampling.bounds import (
    UNBOUNDED,
    DrawBounds,
    available_sequences,
    build_bounds,
    read_budgets,
)
from trainer.sampling.plan import IntervalPlan, draw_interval

EXTREMES = (0.0, 1e-300, 1e-12, 0.001, 0.5, 1.0)


def bounds(leaves: list[int], domains: list[int], draws: int) -> DrawBounds:
    return DrawBounds(np.array(leaves), np.array(domains), draws)


def run(
    bound: DrawBounds, weights: np.ndarray, sequences: np.ndarray, draws: int, seed: int = 0
) -> list[IntervalPlan]:
    """Run all intervals of `draws`, the last of which is shorter."""
    plans: list[IntervalPlan] = []
    used = np.zeros(len(sequences), np.int64)
    while used.sum() < bound.draws:
        now = min(draws, bound.draws - int(used.sum()))
        plans.append(
            draw_interval(len(plans), weights, sequences, used, draws=now, seed=seed, bounds=bound)
        )
        used = used + plans[-1].counts(now)
    return plans


def counts(plans: list[IntervalPlan], leaves: int) -> np.ndarray:
    return np.array([plan.counts(plan.draws) for plan in plans]).reshape(-1, leaves)


# --- the projection


def test_weights_within_the_bounds_are_not_changed() -> None:
    weights = np.array([0.1, 0.2, 0.3])
    assert bounds([100, 100, 100], [100, 100, 100], 100).project(weights, 10) is weights


def test_the_excess_over_a_bound_moves_to_the_others_in_proportion() -> None:
    drawn = bounds([2, 100, 100], [UNBOUNDED] * 3, 10).project(np.array([0.5, 0.3, 0.2]), 10)
    np.testing.assert_allclose(drawn, [2, 8 * 0.6, 8 * 0.4])


def test_a_bound_that_becomes_active_through_another_holds() -> None:
    drawn = bounds([2, 4, 100], [UNBOUNDED] * 3, 10).project(np.array([0.5, 0.3, 0.2]), 10)
    np.testing.assert_allclose(drawn, [2, 4, 4])


def test_a_domain_binds_the_sum_over_its_leaves() -> None:
    """Domain 0 has leaves 0 and 1, with weights 4 to 1.

    It gets at most 4 draws, and leaf 0 at most 3.
    """
    drawn = bounds([3, 100, 100, 100], [4, UNBOUNDED], 10).project(
        np.array([0.4, 0.1, 0.25, 0.25]), 10
    )
    np.testing.assert_allclose(drawn, [3, 1, 3, 3])


def test_tiny_weights_keep_their_proportions() -> None:
    drawn = bounds([1, 100, 100], [UNBOUNDED] * 3, 9).project(np.array([1.0, 3e-300, 1e-300]), 9)
    np.testing.assert_allclose(drawn, [1, 6, 2], rtol=1e-9)


def test_the_pace_is_exceeded_if_the_interval_cannot_be_filled() -> None:
    """Twice the even share of 30 sequences, for 20 of 100 draws, is 12."""
    np.testing.assert_allclose(
        bounds([30, 70], [UNBOUNDED] * 2, 100).project(np.array([1.0, 0.0]), 20), [20, 0]
    )


def test_leaves_without_weight_are_drawn_only_when_all_others_are_used_up() -> None:
    bound = bounds([5, 3, 6], [UNBOUNDED] * 3, 10)
    assert bound.project(np.array([0.5, 0.5, 0.0]), 8)[2] == 0
    np.testing.assert_allclose(
        bound.project(np.array([1.0, 0.0, 0.0]), 8), [5, 1, 2]
    )  # The other two have 3 and 6 left.
    with pytest.raises(UserError, match=r"data\.budgets .*14 sequences.* 15"):
        bound.project(np.array([1.0, 0.0, 0.0]), 15)


small = st.integers(0, 12)


@st.composite
def situations(draw: st.DrawFn) -> tuple[DrawBounds, np.ndarray, int]:
    domains, span = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    leaves = np.array(draw(st.lists(small, min_size=domains * span, max_size=domains * span)))
    caps = np.array(
        draw(st.lists(st.one_of(small, st.just(UNBOUNDED)), min_size=domains, max_size=domains))
    )
    weights = np.array(
        draw(st.lists(st.sampled_from(EXTREMES), min_size=domains * span, max_size=domains * span))
    )
    weights[draw(st.integers(0, len(weights) - 1))] = 1.0
    weights[leaves == 0] = 0.0
    total = int(DrawBounds(leaves, caps, 0).capacity().sum())
    draws = draw(st.integers(1, max(total, 1)))
    return DrawBounds(leaves, caps, draws), weights, total


@settings(max_examples=150)
@given(situations(), st.integers(1, 30), st.integers(0, 5))
def test_every_run_within_its_bounds_can_be_drawn_completely(
    found: tuple[DrawBounds, np.ndarray, int], draws: int, seed: int
) -> None:
    bound, weights, total = found
    if total < bound.draws or not weights.any():
        return
    drawn = counts(run(bound, weights, bound.leaves, draws, seed), len(weights))
    assert drawn.sum() == bound.draws
    assert (drawn.sum(axis=0) <= bound.leaves).all()
    assert (drawn.sum(axis=0).reshape(len(bound.domains), -1).sum(axis=1) <= bound.domains).all()


@settings(max_examples=100)
@given(situations())
def test_the_projection_is_the_nearest_point_in_relative_entropy(
    found: tuple[DrawBounds, np.ndarray, int],
) -> None:
    """No small move from a drawn leaf to another with room reduces the relative entropy."""
    bound, weights, total = found
    if total < bound.draws or not weights.any():
        return
    drawn = bound.project(weights, bound.draws) / 1.0
    drawn = drawn * bound.draws / drawn.sum()
    inside = drawn.reshape(len(bound.domains), -1).sum(axis=1)
    assert (drawn <= bound.leaves + 1e-9).all()
    assert (inside <= bound.domains + 1e-9).all()
    domain = np.repeat(np.arange(len(bound.domains)), len(drawn) // len(bound.domains))
    weighted = np.flatnonzero(weights > 0)
    slope = np.log(np.maximum(drawn, 1e-320)) - np.log(np.where(weights > 0, weights, 1.0))
    for i in weighted[drawn[weighted] > 1e-9]:
        for j in weighted:
            room = drawn[j] < bound.leaves[j] - 1e-9 and (
                domain[i] == domain[j] or inside[domain[j]] < bound.domains[domain[j]] - 1e-9
            )
            assert not room or slope[j] >= slope[i] - 1e-6


# --- over a run


def test_a_small_domain_loses_its_share_gradually() -> None:
    """It has 60 sequences, and its weight demands 10 in each of 10 intervals.

    The even share is 6, the maximum twice that.
    """
    bound = bounds([60, 1000], [UNBOUNDED] * 2, 200)
    drawn = counts(run(bound, np.array([0.5, 0.5]), bound.leaves, 20), 2)[:, 0]
    assert drawn[0] == 10
    assert 58 <= drawn.sum() <= 60
    assert np.abs(np.diff(drawn)).max() <= 2  # no cliff


def test_the_moved_share_is_reported() -> None:
    plan = draw_interval(
        0,
        np.array([0.5, 0.5]),
        np.array([2, 50]),
        np.zeros(2, np.int64),
        draws=10,
        seed=0,
        bounds=bounds([2, 50], [2, 50], 10),
    )
    np.testing.assert_allclose(plan.shares, [0.2, 0.8])
    assert plan.moved == pytest.approx(0.3)
    free = draw_interval(
        0, np.array([0.5, 0.5]), np.array([2, 50]), np.zeros(2, np.int64), draws=10, seed=0
    )
    assert free.moved == 0
    assert free.shares.tolist() == [0.5, 0.5]


def test_inactive_bounds_have_no_effect() -> None:
    sequences, weights = np.array([7, 9, 20]), np.array([0.2, 0.3, 0.5])
    free = draw_interval(0, weights, sequences, np.zeros(3, np.int64), draws=30, seed=0)
    loose = draw_interval(
        0,
        weights,
        sequences,
        np.zeros(3, np.int64),
        draws=30,
        seed=0,
        bounds=bounds([99] * 3, [99] * 3, 60),
    )
    assert free.read().rows.tolist() == loose.read().rows.tolist()
    assert free.read().leaves.tolist() == loose.read().leaves.tolist()


def test_rounding_never_exceeds_a_bound() -> None:
    bound = bounds([3, 3, 3, 9], [5, UNBOUNDED], 10)
    settled = bound.settle(np.array([4, 2, 3, 1]), np.array([0.4, 0.2, 0.3, 0.1]))
    assert settled.tolist() == [3, 2, 3, 2]
    assert bounds([3, 3, 9, 9], [4, UNBOUNDED], 10).settle(
        np.array([3, 2, 0, 5]), np.array([0.3, 0.2, 0.0, 0.5])
    ).tolist() == [3, 1, 0, 6]


def test_settling_moves_the_excess_of_rounding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainer.sampling.plan.interval_counts", lambda *_: np.array([3, 7]))
    plan = draw_interval(
        0,
        np.array([0.5, 0.5]),
        np.array([9, 9]),
        np.zeros(2, np.int64),
        draws=10,
        seed=0,
        bounds=bounds([2, 9], [9, 9], 10),
    )
    assert plan.counts(10).tolist() == [2, 8]


def test_the_draws_until_a_domain_is_used_up() -> None:
    after = bounds([10, 10, 40], [10, UNBOUNDED, 40], 100).used_up_after(np.array([0.5, 0.0, 0.25]))
    assert after.tolist() == [15.0, np.inf, np.inf]


# --- from the config


SEQUENCES = np.array([10, 0, 5, 5])


def test_epochs_and_budgets_both_apply(tmp_path: Path) -> None:
    (tmp_path / "budgets.csv").write_text("domain,tokens\n1,500\n")
    data = Data(max_epochs=1.5, budgets=tmp_path / "budgets.csv")
    found = build_bounds(
        data, SEQUENCES, np.array([True, True, True, False]), level=2, length=64, draws=20
    )
    assert found is not None
    assert found.leaves.tolist() == [15, 0, 8, 0]
    assert found.domains.tolist() == [15, 7]
    assert build_bounds(Data(), SEQUENCES, SEQUENCES > 0, level=2, length=64, draws=10**9) is None


def test_decimal_fractions_of_epochs_are_exact() -> None:
    found = build_bounds(
        Data(max_epochs=0.29), np.array([100]), np.array([True]), level=1, length=1, draws=1
    )
    assert found is not None
    assert found.domains.tolist() == [29]
    assert found.leaves.tolist() == [29]


def test_a_run_that_draws_more_than_the_bounds_allow_is_refused() -> None:
    with pytest.raises(
        UserError,
        match=r"data\.max_epochs .*1,280 tokens .* 1,344.*training\.steps",
    ):
        build_bounds(Data(max_epochs=1.0), SEQUENCES, SEQUENCES > 0, level=2, length=64, draws=21)


def test_budgets_are_read_from_three_formats(tmp_path: Path) -> None:
    pq.write_table(
        pa.table({"domain": pa.array([2, 0], pa.uint32()), "tokens": [5, 70]}),
        tmp_path / "b.parquet",
    )
    (tmp_path / "b.csv").write_text("tokens,domain\n5,2\n70,0\n")
    (tmp_path / "b.json").write_text(json.dumps({"2": 5, "0": 70}), encoding="utf-8-sig")
    for name in ("b.parquet", "b.csv", "b.json"):
        budgets = read_budgets(tmp_path / name, 4)
        assert budgets[[0, 2]].tolist() == [70, 5]
        assert (budgets[[1, 3]] > 2**60).all()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("missing.csv", None),
        ("no_column.csv", "domain,weight\n1,2\n"),
        ("words.csv", "domain,tokens\nlaw,2\n"),
        ("list.json", "[1]"),
        ("broken.json", "{"),
        ("fraction.json", '{"1": 0.5}'),
        ("outside.csv", "domain,tokens\n4,2\n"),
        ("twice.csv", "domain,tokens\n1,2\n1,3\n"),
        ("negative.csv", "domain,tokens\n1,-2\n"),
        ("not.parquet", "text"),
    ],
)
def test_invalid_budgets_are_refused(tmp_path: Path, name: str, text: str | None) -> None:
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=f"data.budgets .*{name}: "):
        read_budgets(tmp_path / name, 4)


# --- scarce domains


def test_a_scarce_domain_keeps_its_leaves_in_proportion() -> None:
    found = available_sequences(np.array([40, 0, 20, 20, 3, 0, 0, 0]), 2, 16 * 8 + 7, 8, 0)
    assert found.tolist() == [8, 0, 4, 4, 3, 0, 0, 0]


@settings(max_examples=100)
@given(st.lists(st.integers(0, 30), min_size=8, max_size=8), st.integers(4, 400), st.integers(0, 3))
def test_every_domain_keeps_exactly_its_maximum(
    sequences: list[int], tokens: int, seed: int
) -> None:
    whole = np.array(sequences)
    found = available_sequences(whole, 2, tokens, 4, seed)
    assert ((found >= 0) & (found <= whole)).all()
    domains = whole.reshape(2, 4).sum(axis=1)
    assert found.reshape(2, 4).sum(axis=1).tolist() == np.minimum(domains, tokens // 4).tolist()
    share = np.minimum(1, tokens // 4 / np.maximum(domains, 1)).repeat(4)
    assert (np.abs(found - whole * share) < 1).all()


def test_no_leaf_is_preferred_for_its_position() -> None:
    found = [available_sequences(np.ones(4, int), 1, 4, 4, seed) for seed in range(400)]
    np.testing.assert_allclose(np.mean(found, axis=0), 0.25, atol=0.09)  # standard error 0.022


def test_a_maximum_below_one_sequence_is_refused() -> None:
    with pytest.raises(UserError, match=r"data\.tokens_per_domain.* 512 tokens"):
        available_sequences(np.array([5]), 1, 511, 512, 0)
