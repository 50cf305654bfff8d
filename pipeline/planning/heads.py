"""Choose shards whose heads are read, and extrapolate from them to the whole corpus."""

import math
from collections.abc import Sequence
from time import perf_counter

import numpy as np

from data_catalog.settings import Settings
from pipeline.location import File
from pipeline.source.head import parse_head

MAXIMUM_HEADS = 32


class EstimatedCount(Settings):
    """An estimated number, with the bounds of two standard errors (about 19 of 20 cases)."""

    low: int
    """Lower bound."""
    likely: int
    """Point estimate."""
    high: int
    """Upper bound."""


def choose_shards(sizes: Sequence[float]) -> list[int]:
    """Return the indices of up to `MAXIMUM_HEADS` shards, evenly spaced by size.

    Large shards are among them, and so is every group of shards that makes up much of the corpus.
    """
    if len(sizes) <= MAXIMUM_HEADS:
        return list(range(len(sizes)))
    ends = np.cumsum([max(size, 1) for size in sizes])
    places = (np.arange(MAXIMUM_HEADS) + 0.5) * (ends[-1] / MAXIMUM_HEADS)
    return np.unique(np.searchsorted(ends, places)).tolist()


def seconds_to_parse(file: File, size: int) -> float:
    """Return the seconds that reading a whole JSON lines file takes, extrapolated from its head.

    `size` is the file's size in bytes. Return 0 for a file without lines.
    """
    started = perf_counter()
    share = parse_head(file, size)
    return (perf_counter() - started) / share if share else 0.0


def extrapolate(
    values: Sequence[float],
    errors: Sequence[float],
    read_sizes: Sequence[float],
    sizes: Sequence[float],
) -> EstimatedCount:
    """Estimate the sum of a value over all shards from the shards that were read.

    This is a ratio estimate: values are in proportion to sizes (Cochran, Sampling Techniques, 3rd
    ed., section 6.3), with the finite population correction for the shards that were read. The
    error within each of these is added.

    Args:
        values: The value of each shard that was read.
        errors: Relative variance of each of these values.
        read_sizes: Size of each of these shards.
        sizes: Sizes of all shards.
    """
    read = sum(read_sizes)
    if not read:
        return EstimatedCount(low=0, likely=0, high=0)
    ratio = sum(values) / read
    total = ratio * sum(sizes)
    unread_share = 1 - len(values) / len(sizes)
    spread = sum(
        (value - ratio * size) ** 2 for value, size in zip(values, read_sizes, strict=True)
    )
    between = spread * len(values) / max(len(values) - 1, 1) * unread_share
    within = sum(value**2 * error for value, error in zip(values, errors, strict=True))
    error = 2 * math.sqrt(between + within) * sum(sizes) / read
    return EstimatedCount(
        low=max(round(total - error), 0), likely=round(total), high=round(total + error)
    )
