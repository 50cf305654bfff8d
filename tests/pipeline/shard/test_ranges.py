"""Ranges have whole leaves, and follow from the documents alone."""

from itertools import pairwise

import numpy as np
import pytest

from data_catalog.format.layout import Levels
from pipeline.config import Store
from pipeline.shard.ranges import Ranges, TopRange, plan_ranges, range_bounds, read_ranges
from tests.helpers.parts import assigned_part, source_part, verdicts_part


def test_small_top_level_domains_share_a_range():
    assert range_bounds(np.array([30, 20, 0, 0, 40, 10, 5, 5]), 2, 100) == [0, 6, 8]


def test_a_large_top_level_domain_is_cut_into_equal_shares_and_shares_with_no_other():
    sizes = np.array([10, 0, 0, 0, 60, 60, 60, 60, 10, 0, 0, 0])
    assert range_bounds(sizes, 4, 120) == [0, 4, 6, 8, 12]


def test_a_leaf_is_never_cut():
    assert range_bounds(np.array([10, 900, 10, 10]), 4, 100) == [0, 2, 4]
    assert range_bounds(np.array([900]), 1, 100) == [0, 1]


def test_empty_domains_have_a_range_too():
    assert range_bounds(np.zeros(4, np.int64), 2, 100) == [0, 4]
    assert range_bounds(np.array([0, 0, 70, 70, 0, 0]), 2, 100) == [0, 2, 3, 6]


@pytest.mark.parametrize("most", [1, 50, 333, 5_000, 10**6])
def test_every_leaf_is_in_one_range_and_no_domain_is_forgotten(most):
    random = np.random.Generator(np.random.Philox(key=3))
    sizes = random.integers(0, 300, 64) * (random.random(64) < 0.7)
    bounds = range_bounds(sizes, 8, most)
    assert bounds == sorted(set(bounds))
    assert (bounds[0], bounds[-1]) == (0, 64)
    for first, last in pairwise(bounds):
        whole_domains = first % 8 == last % 8 == 0
        assert (
            whole_domains or first // 8 == (last - 1) // 8 or not sizes[last // 8 * 8 : last].sum()
        )
        assert sizes[first:last].sum() <= 2 * most + sizes.max()
    pieces = Ranges(tuple(bounds)).of_tops(Levels((8, 64)))
    assert [[leaves.top for leaves in of_top] for of_top in pieces] == [
        [top] * len(of_top) for top, of_top in enumerate(pieces)
    ]
    assert all(pieces)
    leaves = [
        leaf for of_top in pieces for piece in of_top for leaf in range(piece.first, piece.last)
    ]
    assert leaves == list(range(64))


def test_the_leaves_of_a_top_level_domain_are_named_by_it():
    assert Ranges((0, 4, 6, 12)).of_tops(Levels((3, 12))) == [
        [TopRange(0, 0, 0, 0, 4)],
        [TopRange(1, 1, 0, 4, 6), TopRange(1, 2, 1, 6, 8)],
        [TopRange(2, 2, 0, 8, 12)],
    ]
    assert [TopRange(1, 2, order, 6, 8).name for order in (0, 1)] == ["0001", "0001-0001"]


def planned(folder, texts, leaves, dropped=None, reverse=False, **settings):
    """Plan the ranges of parts with these texts and leaves."""
    sources = [source_part(folder / "source" / name, texts[name]) for name in texts]
    unique = verdicts_part(folder / "dedup", sources)
    final = verdicts_part(folder / "semantic", sources, dropped)
    assigned = [assigned_part(folder / "assign" / name, leaves[name]) for name in texts]
    if reverse:
        sources, assigned = sources[::-1], assigned[::-1]
    return plan_ranges(
        sources,
        [unique] * len(sources),
        [final] * len(sources),
        assigned,
        folder / "ranges",
        Store(file_megabytes=1, **settings),
        Levels((2, 4)),
    )


MEGABYTE = "x" * 2**20  # 1.5 MB with its tokens, as estimated


def test_dropped_documents_have_no_weight(tmp_path):
    texts, leaves = {"a": [MEGABYTE] * 4}, {"a": [0, 0, 1, 3]}
    assert read_ranges(planned(tmp_path / "all", texts, leaves)).bounds == (0, 1, 2, 4)
    some = planned(tmp_path / "some", texts, leaves, {"a": [0, 1]})
    assert read_ranges(some).bounds == (0, 4)


def test_the_order_of_the_parts_does_not_matter(tmp_path):
    texts = {"a": [MEGABYTE] * 3, "b": [MEGABYTE] * 2, "c": ["small"]}
    leaves = {"a": [0, 1, 2], "b": [2, 3], "c": [3]}
    forward = planned(tmp_path / "forward", texts, leaves)
    backward = planned(tmp_path / "backward", texts, leaves, reverse=True)
    assert forward.fingerprint == backward.fingerprint
    assert (forward.folder / "ranges.json").read_bytes() == (
        backward.folder / "ranges.json"
    ).read_bytes()


def test_of_many_parts_some_stand_for_all(tmp_path, monkeypatch):
    texts = {name: [MEGABYTE] * 2 for name in "abcdef"}
    leaves = {name: [0, 3] for name in "abcdef"}
    every = planned(tmp_path / "every", texts, leaves)
    monkeypatch.setattr("pipeline.shard.ranges.MAXIMUM_COUNTED_PARTS", 2)
    some = planned(tmp_path / "some", texts, leaves)
    assert read_ranges(every).bounds == read_ranges(some).bounds == (0, 2, 4)
    same = planned(tmp_path / "same", texts, {**leaves, "a": [1, 2]})
    other = planned(tmp_path / "other", texts, {**leaves, "d": [1, 2]})
    assert same.fingerprint == some.fingerprint != other.fingerprint  # the hashes of d and f choose


def test_parts_far_smaller_than_a_range_get_larger_ranges(tmp_path, monkeypatch):
    texts, leaves = {"a": [MEGABYTE] * 4}, {"a": [0, 0, 1, 3]}
    monkeypatch.setattr("pipeline.shard.ranges.MINIMUM_COLUMN_BYTES", 2**23)
    assert read_ranges(planned(tmp_path, texts, leaves)).bounds == (0, 4)


def test_no_parts_give_one_range(tmp_path):
    part = plan_ranges([], [], [], [], tmp_path / "ranges", Store(), Levels((2, 4)))
    assert read_ranges(part).bounds == (0, 4)
