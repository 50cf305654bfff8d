"""Batches from the token store."""

from pathlib import Path

import numpy as np
import pytest
import torch

from data_catalog import UserError
from data_catalog.format.files import open_files
from data_catalog.format.tokens import TokenStore, open_tokens
from tests.helpers.tiny_catalog import WORDS, write_tiny_catalog
from trainer.sampling.batches import Batch, Pool, interval_batches
from trainer.sampling.permutation import generator
from trainer.sampling.plan import Draws, IntervalPlan, draw_interval

# leaf 0: tokens 10..17 (8), leaf 1: none, leaf 2: 20..22 (3)
STORE = TokenStore(
    {0: np.array([10, 11, 12, 13, 14, 15, 16, 17, 20, 21, 22], np.uint16)},
    np.zeros(3, np.int64),
    np.array([0, 8, 8]),
    np.array([8, 0, 3]),
    pad=99,
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


def test_numbers_cover_all_leaves_with_sequences() -> None:
    leaves, rows = POOL.locate(np.arange(4))
    assert leaves.tolist() == [0, 0, 0, 2]
    assert rows.tolist() == [0, 1, 2, 0]


def test_the_walk_visits_every_sequence_once_per_epoch_from_any_start() -> None:
    leaves, rows = POOL.in_order(0, "walk", 0, 12)
    for epoch in range(3):
        part = slice(4 * epoch, 4 * epoch + 4)
        assert sorted(zip(leaves[part].tolist(), rows[part].tolist(), strict=True)) == [
            (0, 0),
            (0, 1),
            (0, 2),
            (2, 0),
        ]
    assert [a[5:9].tolist() for a in (leaves, rows)] == [
        a.tolist() for a in POOL.in_order(0, "walk", 5, 4)
    ]


def test_draws_follow_the_weights() -> None:
    leaves, rows = POOL.draw(np.array([0.25, 0.0, 0.75]), 4000, generator(0, "draws"))
    assert set(leaves.tolist()) == {0, 2}
    assert abs((leaves == 2).mean() - 0.75) < 0.03  # standard error 0.007
    np.testing.assert_allclose(
        np.bincount(rows[leaves == 0]) / (leaves == 0).sum(), 1 / 3, atol=0.06
    )


def test_an_empty_pool_is_refused_by_name() -> None:
    with pytest.raises(UserError, match="the align split: "):
        Pool(
            TokenStore(
                {0: np.array([5], np.uint16)},
                np.zeros(1, np.int64),
                np.array([0]),
                np.array([1]),
                0,
            ),
            4,
            "the align split",
        )


@pytest.mark.parametrize("world", [1, 2, 3])
def test_the_parts_of_all_ranks_are_the_global_batch(world: int) -> None:
    plan = draw_interval(
        0, np.array([0.5, 0.0, 0.5]), POOL.sequences, np.zeros(3, np.int64), draws=15, seed=0
    )
    ranks = [
        list(interval_batches(POOL, plan, range(1, 3), batch_sequences=5, rank=rank, world=world))
        for rank in range(world)
    ]
    drawn = plan.read(slice(5, 10))
    whole = POOL.read(drawn.leaves, drawn.rows)
    assert [row for batches in ranks for row in batches[0].inputs.tolist()] == whole.inputs.tolist()
    assert {batches[0].total for batches in ranks} == {whole.total}
    assert [len(batches) for batches in ranks] == [2] * world


@pytest.mark.parametrize(("workers", "ahead"), [(1, 1), (1, 7), (3, 1), (3, 4), (8, 50)])
@pytest.mark.parametrize("world", [1, 2, 3])
def test_the_stream_does_not_depend_on_threads(workers: int, ahead: int, world: int) -> None:
    plan = draw_interval(
        0, np.array([0.5, 0.0, 0.5]), POOL.sequences, np.zeros(3, np.int64), draws=60, seed=0
    )
    drawn = plan.read()
    whole = POOL.read(drawn.leaves, drawn.rows).inputs.tolist()
    for first in (0, 4):  # from the beginning, and resumed in the middle
        ranks = [
            list(
                interval_batches(
                    POOL,
                    plan,
                    range(first, 12),
                    batch_sequences=5,
                    rank=rank,
                    world=world,
                    workers=workers,
                    ahead=ahead,
                )
            )
            for rank in range(world)
        ]
        rows = [
            row
            for step in zip(*ranks, strict=True)
            for batch in step
            for row in batch.inputs.tolist()
        ]
        assert rows == whole[5 * first :]


class ListedPlan(IntervalPlan):
    """A plan whose draws are given."""

    def __init__(self, leaves: list[int], rows: list[int]) -> None:
        counts = np.bincount(leaves, minlength=3)
        super().__init__(0, counts, POOL.sequences, counts * 0, seed=0, shares=np.ones(3))
        self.listed = np.array(leaves), np.array(rows), np.zeros(len(rows), np.int64)

    def read(self, part: slice = slice(None)) -> Draws:
        return Draws(*(column[part] for column in self.listed))


def test_an_error_of_a_reader_ends_the_stream() -> None:
    plan = ListedPlan([0, 0, 1, 0], [0, 1, 0, 2])
    batches = interval_batches(
        POOL, plan, range(4), batch_sequences=1, rank=0, world=1, workers=2, ahead=4
    )
    assert [next(batches).inputs.tolist(), next(batches).inputs.tolist()] == [
        [[10, 11, 12]],
        [[13, 14, 15]],
    ]
    with pytest.raises(IndexError, match="leaf 1: row 0"):
        next(batches)


def test_reading_ahead_is_limited() -> None:
    read: list[int] = []

    class Counting(Pool):
        def read(self, leaves: np.ndarray, rows: np.ndarray, part: slice = slice(None)) -> Batch:
            read.append(len(leaves))
            return super().read(leaves, rows, part)

    plan = draw_interval(
        0, np.array([0.5, 0.0, 0.5]), POOL.sequences, np.zeros(3, np.int64), draws=60, seed=0
    )
    batches = interval_batches(
        Counting(STORE, 3, "test"), plan, range(12), batch_sequences=5, rank=0, world=1, ahead=3
    )
    next(batches)
    batches.close()  # type: ignore[attr-defined]
    assert len(read) == 1 + 3


LONG = Pool(
    TokenStore(
        {0: np.arange(200, dtype=np.uint16)},
        np.zeros(2, np.int64),
        np.array([0, 101]),
        np.array([101, 61]),
        0,
    ),
    4,
    "long",
)
SCARCE = Pool(LONG.store, 4, "scarce", available=np.array([5, 15]), seed=3)


def first_tokens(pool: Pool, leaves: np.ndarray, rows: np.ndarray) -> list[int]:
    """Return the first token of each sequence, which identifies it in the store."""
    return pool.read(leaves, rows).inputs[:, 0].tolist()


def test_a_scarce_leaf_always_has_the_same_sequences() -> None:
    assert LONG.sequences.tolist() == [25, 15]
    kept = {*first_tokens(SCARCE, np.zeros(5, int), np.arange(5))}
    assert len(kept) == 5
    assert kept != {*first_tokens(LONG, np.zeros(5, int), np.arange(5))}
    assert first_tokens(SCARCE, np.ones(15, int), np.arange(15)) == first_tokens(
        LONG, np.ones(15, int), np.arange(15)
    )
    leaves, rows = SCARCE.draw(np.array([1.0, 0.0]), 200, generator(0, "draws"))
    assert {*first_tokens(SCARCE, leaves, rows)} == kept
    leaves, rows = SCARCE.in_order(0, "walk", 0, 20)
    assert {*first_tokens(SCARCE, leaves[leaves == 0], rows[leaves == 0])} == kept
    plan = draw_interval(
        0, np.array([1.0, 0.0]), SCARCE.sequences, np.zeros(2, np.int64), draws=10, seed=0
    )
    drawn = first_tokens(SCARCE, plan.read().leaves, plan.read().rows)
    assert {*drawn[:5]} == {*drawn[5:]} == kept
    other = Pool(LONG.store, 4, "scarce", available=np.array([5, 15]), seed=4)
    assert {*first_tokens(other, np.zeros(5, int), np.arange(5))} != kept


def test_tokens_count_what_is_available() -> None:
    assert LONG.tokens().tolist() == [100, 60]
    assert SCARCE.tokens().tolist() == [20, 60]
    assert POOL.tokens().tolist() == [7, 0, 2]


def test_nothing_is_read_beyond_the_interval() -> None:
    plan = ListedPlan([0, 0], [0, 1])
    assert [
        batch.inputs.tolist()
        for batch in interval_batches(POOL, plan, range(2), batch_sequences=1, rank=0, world=1)
    ] == [
        [[10, 11, 12]],
        [[13, 14, 15]],
    ]
    assert list(interval_batches(POOL, plan, range(2, 2), batch_sequences=1, rank=0, world=1)) == []


def test_each_leaf_of_the_tiny_catalog_has_one_language(tmp_path: Path) -> None:
    pool = Pool(
        open_tokens(open_files(write_tiny_catalog(tmp_path / "catalog")), "train"), 16, "tiny"
    )
    assert pool.sequences.tolist() == [60, 36, 45, 24, 18, 30, 0, 2]
    batch = pool.read(np.array([5]), np.array([3]))
    words = batch.inputs[batch.inputs > 0]
    assert set((words // WORDS).tolist()) == {5}


@pytest.mark.parametrize(("labels", "width"), [(0, 64), (1, 64), (64, 64), (65, 128), (150, 150)])
def test_a_batch_is_cut_behind_its_last_label(labels: int, width: int) -> None:
    filled = torch.full((2, 150), -100)
    filled[1, max(labels - 3, 0) : labels] = 7  # the labels before are masked, as of a prompt
    cut = Batch(torch.arange(300).reshape(2, 150), filled, 3).cut()
    assert cut.inputs.shape == cut.labels.shape == (2, width)
    assert cut.inputs[1, 0] == 150
    assert int((cut.labels == 7).sum()) == int((filled == 7).sum())
    assert cut.total == 3
