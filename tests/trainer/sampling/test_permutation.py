"""Keyed permutations are bijective for every size, uniform, and stable over versions."""

from collections import Counter

import numpy as np
import pytest

from trainer.sampling.permutation import derive, generator, permutation_key, permute

GOLDEN = [
    1,
    8,
    7,
    0,
    2,
    3,
    4,
    5,
    9,
    6,
]  # of the first version: a change here changes every run's data
LARGE = [
    795801706,
    2099609152,
    17043830131506099,
    17043830131506099,
    772049252015168744,
    146675391503164547,
]


def whole(size: int, name: int = 0) -> list[int]:
    return permute(
        np.arange(size, dtype=np.uint64), np.uint64(size), permutation_key(0, "test", name)
    ).tolist()


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 15, 16, 17, 63, 64, 65, 255, 256, 257, 1000, 5000])
def test_every_index_is_reached_once(size: int) -> None:
    assert sorted(whole(size)) == list(range(size))


def test_the_order_is_stable_over_versions() -> None:
    assert whole(10) == GOLDEN
    assert whole(10) != whole(10, 1)


def test_elements_of_different_permutations_can_be_mixed_in_one_call() -> None:
    index, size = np.array([0, 2, 4, 0], np.uint64), np.array([3, 5, 5, 1], np.uint64)
    keys = derive(permutation_key(0, "leaf"), np.array([7, 8, 8, 9], np.uint64))
    alone = [permute(index[i : i + 1], size[i : i + 1], keys[i : i + 1])[0] for i in range(4)]
    assert permute(index, size, keys).tolist() == alone
    assert alone[3] == 0


def test_a_scalar_key_equals_the_same_key_per_element() -> None:
    index, one = np.arange(300, dtype=np.uint64), permutation_key(0, "test", 5)
    assert (
        permute(index, np.uint64(300), np.full(300, one)).tolist()
        == permute(index, np.uint64(300), one).tolist()
    )
    grid = permute(index.reshape(3, 100), np.uint64(300), np.array([[one], [one], [one]]))
    assert grid.reshape(-1).tolist() == permute(index, np.uint64(300), one).tolist()


def test_the_order_of_large_sizes_is_stable_over_versions() -> None:
    """The sizes are on both sides of a power of two, where counting bits with floats could fail."""
    sizes = np.array([2**32, 2**32 + 1, 2**54 - 1, 2**54, 2**60 - 1, 2**60 + 1], np.uint64)
    assert permute(np.full(6, 7, np.uint64), sizes, permutation_key(0, "test")).tolist() == LARGE


def test_all_orders_of_three_are_about_equally_frequent() -> None:
    counts = Counter(tuple(whole(3, name)) for name in range(600))
    assert len(counts) == 6
    assert (
        sum((count - 100) ** 2 / 100 for count in counts.values()) < 20.5
    )  # chi-square, 5 degrees of freedom, p = 0.001


def test_an_image_is_independent_of_its_index() -> None:
    images = np.array(
        [whole(100, name) for name in range(400)]
    )  # mean of each column: 49.5, standard error 1.44
    assert np.abs(images.mean(axis=0) - 49.5).max() < 6.5
    neighbours = np.corrcoef(images[:, 0], images[:, 1])[0, 1]
    assert abs(neighbours) < 0.2


def test_huge_sizes_need_no_memory() -> None:
    size = np.uint64(2**62 - 57)
    image = permute(np.arange(1000, dtype=np.uint64), size, permutation_key(0, "huge"))
    assert len(set(image.tolist())) == 1000
    assert image.max() < size


def test_an_index_outside_is_refused() -> None:
    with pytest.raises(ValueError, match="permute"):
        permute(np.array([3], np.uint64), np.uint64(3), permutation_key(0, "test"))


def test_generators_depend_on_every_part_of_their_name() -> None:
    names = [(0, "stage", 1), (1, "stage", 1), (0, "probe", 1), (0, "stage", 2), (0, "stage", 1, 1)]
    draws = [int(generator(*name).integers(2**62)) for name in names]
    assert len(set(draws)) == 5
    assert draws[0] == int(generator(0, "stage", 1).integers(2**62))
