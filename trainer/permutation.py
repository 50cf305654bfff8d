"""Keyed randomness: generators and permutations that are functions of their key, so that nothing need be stored to resume them.

A permutation of `0 .. n-1` is a Feistel network on the smallest even number of bits that holds n, repeated on a value
until it falls below n (cycle walking). It costs no memory, is evaluated at any index, and works element by element.
"""

import hashlib

import numpy as np
from jaxtyping import UInt64

ROUNDS = 8
LEAST_HALF_BITS = 2  # of one half of the network: fewer bits give too few different round functions
GOLDEN = 0x9E3779B97F4A7C15  # 2**64 / golden ratio: spreads consecutive round numbers

Words = UInt64[np.ndarray, "*shape"]


def generator(seed: int, purpose: str, *index: int) -> np.random.Generator:
    """A counter-based generator for one purpose, e.g. `generator(seed, "stage", 3)`."""
    return np.random.Generator(np.random.Philox(key=int.from_bytes(_digest(seed, purpose, index)[:16], "little")))


def key(seed: int, purpose: str, *index: int) -> np.uint64:
    """A 64-bit permutation key for one purpose."""
    return np.uint64(int.from_bytes(_digest(seed, purpose, index)[:8], "little"))


def _digest(seed: int, purpose: str, index: tuple[int, ...]) -> bytes:
    return hashlib.sha256("/".join((str(seed), purpose, *map(str, index))).encode()).digest()


def derive(parent: np.uint64 | Words, index: Words) -> Words:
    """A key for each of `index` from a parent key (or one parent each)."""
    return _scramble(_scramble(parent ^ (index * np.uint64(GOLDEN))) + np.uint64(GOLDEN))


def permute(index: Words, size: Words | np.uint64, keys: Words | np.uint64) -> Words:
    """Where the permutation of `0 .. size-1` with key `keys` sends `index`, element by element.

    Args:
        index: below `size`.
        size: at least 1.
        keys: elements with equal key and size belong to one permutation.
    """
    index, size, keys = np.broadcast_arrays(index, size, keys)
    if (index >= size).any():
        raise ValueError("permute: an index is not below its size")
    bits = np.frompyfunc(int.bit_length, 1, 1)((size - np.uint64(1)).astype(object)).astype(np.uint64)
    half = np.maximum((bits + np.uint64(1)) // np.uint64(2), np.uint64(LEAST_HALF_BITS))
    result = index.copy()
    walking = np.flatnonzero(size.reshape(-1) > 1)
    flat = result.reshape(-1)
    while len(walking):
        flat[walking] = _feistel(flat[walking], half.reshape(-1)[walking], keys.reshape(-1)[walking])
        walking = walking[flat[walking] >= size.reshape(-1)[walking]]
    return result


def _feistel(value: Words, half: Words, keys: Words) -> Words:
    mask = (np.uint64(1) << half) - np.uint64(1)
    left, right = value >> half, value & mask
    for number in range(ROUNDS):
        salt = keys + np.uint64((number + 1) * GOLDEN % 2**64)
        left, right = right, left ^ (_scramble(right ^ _scramble(salt)) & mask)
    value = (left << half) | right
    return value


def _scramble(word: np.uint64 | Words) -> Words:
    """The finaliser of SplitMix64: every input bit changes every output bit with chance near one half."""
    mixed: Words = np.atleast_1d(np.asarray(word, np.uint64))  # arrays wrap around silently, scalars warn
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed = mixed ^ (mixed >> np.uint64(31))
    return mixed
