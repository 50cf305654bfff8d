"""Keyed randomness: generators and permutations that are pure functions of a key.

A resumed run recreates them from the key, without stored state. A permutation of `0 .. n-1` is a
Feistel network on the smallest even number of bits that holds n, applied repeatedly until the value
is below n (cycle walking). It needs no memory, can be evaluated at any index, and is vectorised.
"""

import hashlib

import numpy as np
from jaxtyping import Int, UInt64

ROUNDS = 8
MINIMUM_HALF_BITS = 2  # bits per half of the network; fewer give too few round functions
GOLDEN = 0x9E3779B97F4A7C15  # 2**64 / golden ratio, which spreads consecutive round numbers

_Words = UInt64[np.ndarray, "..."]


def generator(seed: int, purpose: str, *index: int) -> np.random.Generator:
    """Return a counter-based generator for one purpose, such as `generator(seed, "stage", 3)`."""
    key = int.from_bytes(_digest(seed, purpose, index)[:16], "little")
    return np.random.Generator(np.random.Philox(key=key))


def permutation_key(seed: int, purpose: str, *index: int) -> np.uint64:
    """Return a 64-bit permutation key for one purpose."""
    return np.uint64(int.from_bytes(_digest(seed, purpose, index)[:8], "little"))


def _digest(seed: int, purpose: str, index: tuple[int, ...]) -> bytes:
    return hashlib.sha256("/".join((str(seed), purpose, *map(str, index))).encode()).digest()


def derive(parent: np.uint64 | _Words, index: _Words) -> _Words:
    """Return a key for each element of `index`, derived from a parent key or from one each."""
    return _scramble(_scramble(parent ^ (index * np.uint64(GOLDEN))) + np.uint64(GOLDEN))


def permute(index: _Words, size: _Words | np.uint64, keys: _Words | np.uint64) -> _Words:
    """Return the image of `index` under the permutation of `0 .. size-1` with key `keys`.

    The arguments are broadcast against each other and processed element by element. Elements with
    equal key and size belong to the same permutation.

    Args:
        index: values below `size`.
        size: sizes of at least 1.
        keys: permutation keys.

    Raises:
        ValueError: An index is not below its size.
    """
    single = np.ndim(keys) == 0
    index, size, spread = np.broadcast_arrays(index, size, keys)
    if (index >= size).any():
        raise ValueError("permute: an index is not below its size")
    half = np.maximum(
        (_bit_length(size - np.uint64(1)) + np.uint64(1)) // np.uint64(2),
        np.uint64(MINIMUM_HALF_BITS),
    ).reshape(-1)
    result = index.copy()
    walking = np.flatnonzero(size.reshape(-1) > 1)
    flat = result.reshape(-1)
    salts = _salts(np.atleast_1d(keys) if single else spread.reshape(-1))
    while len(walking):
        flat[walking] = _feistel(
            flat[walking], half[walking], salts if single else salts[:, walking]
        )
        walking = walking[flat[walking] >= size.reshape(-1)[walking]]
    return result


def _salts(keys: UInt64[np.ndarray, " n"]) -> UInt64[np.ndarray, "rounds n"]:
    return np.stack(
        [_scramble(keys + np.uint64((number + 1) * GOLDEN % 2**64)) for number in range(ROUNDS)]
    )


def _bit_length(word: _Words) -> _Words:
    """Return the number of bits of each word.

    This is the floating-point exponent of the upper 32 bits, or of the lower ones if those are
    zero. A float cannot hold all 64 bits exactly.
    """
    upper = word >> np.uint64(32)
    bits: _Words = (
        np.frexp(np.where(upper > 0, upper, word).astype(np.float64))[1]
        + np.where(upper > 0, 32, 0)
    ).astype(np.uint64)
    return bits


def walk(seed: int, purpose: str, first: int, count: int, total: int) -> Int[np.ndarray, " count"]:
    """Return part of an endless walk over `0 .. total - 1`, in a new keyed order every epoch.

    Args:
        seed: seed of the run.
        purpose: name of the walk.
        first: position of the first returned element in the walk.
        count: number of elements.
        total: number of values, each of which occurs once per epoch.
    """
    epochs, places = np.divmod(np.arange(first, first + count), total)
    keys = np.array([permutation_key(seed, purpose, int(epoch)) for epoch in epochs], np.uint64)
    return permute(places.astype(np.uint64), np.uint64(total), keys).astype(np.int64)


def _feistel(value: _Words, half: _Words, salts: UInt64[np.ndarray, "rounds n_or_one"]) -> _Words:
    mask = (np.uint64(1) << half) - np.uint64(1)
    left, right = value >> half, value & mask
    for salt in salts:
        left, right = right, left ^ (_scramble(right ^ salt) & mask)
    value = (left << half) | right
    return value


def _scramble(word: np.uint64 | _Words) -> _Words:
    """Apply the finaliser of SplitMix64.

    Every input bit changes every output bit with a probability near one half.
    """
    # A copy. It is an array because arrays wrap around silently and scalars warn.
    mixed: _Words = np.array(word, np.uint64, ndmin=1)
    mixed ^= mixed >> np.uint64(30)
    mixed *= np.uint64(0xBF58476D1CE4E5B9)
    mixed ^= mixed >> np.uint64(27)
    mixed *= np.uint64(0x94D049BB133111EB)
    mixed ^= mixed >> np.uint64(31)
    return mixed
