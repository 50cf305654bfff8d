"""Batches from the token store."""

from pathlib import Path

import numpy as np
import pytest

from data_catalog import UserError
from data_catalog.tokens import TokenStore, open_tokens
from tests.tiny_catalog import LEVELS, WORDS, write_tiny_catalog
from trainer.data import Pool, stage_batches
from trainer.permutation import generator
from trainer.plan import StagePlan, draw_stage

# leaf 0: tokens 10..17 (8), leaf 1: none, leaf 2: 20..22 (3)
STORE = TokenStore(
    {0: np.array([10, 11, 12, 13, 14, 15, 16, 17, 20, 21, 22])}, np.zeros(3, np.int64), np.array([0, 8, 8]), np.array([8, 0, 3]), pad=99
)
POOL = Pool(STORE, 3, "test")


def test_sequences_of_a_leaf_cover_its_stream() -> None:
    assert POOL.sequences.tolist() == [3, 0, 1]
    batch = POOL.read(np.array([0, 0, 0, 2]), np.array([0, 1, 2, 0]))
    assert batch.inputs.tolist() == [[10, 11, 12], [13, 14, 15], [16, 99, 99], [20, 21, 99]]
    assert batch.labels.tolist() == [[11, 12, 13], [14, 15, 16], [17, -100, -100], [21, 22, -100]]
    assert batch.total == 9 == int((batch.labels != -100).sum())


def test_the_divisor_of_a_part_counts_the_whole_batch() -> None:
    batch = POOL.read(np.array([0, 0, 0, 2]), np.array([0, 1, 2, 0]), slice(2, 4))
    assert batch.inputs.tolist() == [[16, 99, 99], [20, 21, 99]]
    assert batch.total == 9


def test_numbers_run_through_all_leaves_with_sequences() -> None:
    leaves, rows = POOL.locate(np.arange(4))
    assert leaves.tolist() == [0, 0, 0, 2]
    assert rows.tolist() == [0, 1, 2, 0]


def test_the_walk_visits_every_sequence_once_an_epoch_wherever_it_is_entered() -> None:
    leaves, rows = POOL.in_order(0, "walk", 0, 12)
    for epoch in range(3):
        part = slice(4 * epoch, 4 * epoch + 4)
        assert sorted(zip(leaves[part].tolist(), rows[part].tolist(), strict=True)) == [(0, 0), (0, 1), (0, 2), (2, 0)]
    assert [a[5:9].tolist() for a in (leaves, rows)] == [a.tolist() for a in POOL.in_order(0, "walk", 5, 4)]


def test_draws_follow_the_weights() -> None:
    leaves, rows = POOL.draw(np.array([0.25, 0.0, 0.75]), 4000, generator(0, "draws"))
    assert set(leaves.tolist()) == {0, 2}
    assert abs((leaves == 2).mean() - 0.75) < 0.03  # standard error 0.007
    np.testing.assert_allclose(np.bincount(rows[leaves == 0]) / (leaves == 0).sum(), 1 / 3, atol=0.06)


def test_an_empty_pool_is_refused_by_name() -> None:
    with pytest.raises(UserError, match="the align split: holds no sequence"):
        Pool(TokenStore({0: np.array([5])}, np.zeros(1, np.int64), np.array([0]), np.array([1]), 0), 4, "the align split")


@pytest.mark.parametrize("world", [1, 2, 3])
def test_the_parts_of_all_ranks_are_the_global_batch(world: int) -> None:
    plan = draw_stage(0, np.array([0.5, 0.0, 0.5]), POOL.sequences, np.zeros(3, np.int64), draws=15, seed=0)
    ranks = [list(stage_batches(POOL, plan, range(1, 3), batch_sequences=5, rank=rank, world=world)) for rank in range(world)]
    whole = POOL.read(plan.leaves[5:10], plan.rows[5:10])
    assert [row for batches in ranks for row in batches[0].inputs.tolist()] == whole.inputs.tolist()
    assert {batches[0].total for batches in ranks} == {whole.total}
    assert [len(batches) for batches in ranks] == [2] * world


def test_nothing_is_read_past_the_stage() -> None:
    plan = StagePlan(0, 0, np.array([0, 0]), np.array([0, 1]), np.array([0, 0]))
    assert [batch.inputs.tolist() for batch in stage_batches(POOL, plan, range(2), batch_sequences=1, rank=0, world=1)] == [
        [[10, 11, 12]],
        [[13, 14, 15]],
    ]
    assert list(stage_batches(POOL, plan, range(2, 2), batch_sequences=1, rank=0, world=1)) == []


def test_the_tiny_catalog_speaks_one_language_a_leaf(tmp_path: Path) -> None:
    pool = Pool(open_tokens(write_tiny_catalog(tmp_path / "catalog"), LEVELS, "train", 0), 16, "tiny")
    assert pool.sequences.tolist() == [60, 36, 45, 24, 18, 30, 0, 2]
    batch = pool.read(np.array([5]), np.array([3]))
    words = batch.inputs[batch.inputs > 0]
    assert set((words // WORDS).tolist()) == {5}
