"""Position of training -> record number: an order that depends on (seed, position) alone.

One set, or several taken as one: position p is record permutation(seed, p // n)[p % n]. With a weight for each set
its share of every stretch of positions is exact to within one record a set, and each goes through permutations of
its own.
"""

import functools
from collections.abc import Sequence

import numpy as np

_ORDER, _DRAWS, _FIRST_SET = 0, 1, 2  # purposes of random bits
_SCALE = 1_000_000  # weights are whole millionths: sums of fractions would drift


class Order:
    """record_number = order(position)."""

    def __init__(self, seed: int, lengths: Sequence[int], weights: Sequence[float] = ()):
        """lengths: records of each set, numbered one set after another. weights: of each set; none takes all as one."""
        self._seed, self._total = seed, sum(lengths)
        self._weights = [max(1, round(weight / sum(weights) * _SCALE)) for weight in weights]
        self._lengths = list(lengths)

    def __call__(self, position: int) -> int:
        if not self._weights:
            epoch, place = divmod(position, self._total)
            return int(_cached_permutation(self._seed, epoch, self._total)[place])
        number, local = turn(position, self._weights)
        epoch, place = divmod(local, self._lengths[number])
        order = _cached_permutation(self._seed, epoch, self._lengths[number], _FIRST_SET + number)
        return sum(self._lengths[:number]) + int(order[place])

    def by_chance(self, rng: np.random.Generator) -> int:
        """Any record, a set as often as its weight says."""
        if not self._weights:
            return int(rng.integers(self._total))
        number, _ = turn(int(rng.integers(sum(self._weights))), self._weights)
        return sum(self._lengths[:number]) + int(rng.integers(self._lengths[number]))


def turn(position: int, weights: Sequence[int]) -> tuple[int, int]:
    """(set, how often it had its turn before) at a position, turns spread as evenly as whole numbers allow.

    The first set has had floor(p w / sum) turns before position p; what is left is divided among the others likewise.
    """
    left = sum(weights)
    for number, weight in enumerate(weights[:-1]):
        before = position * weight // left
        if (position + 1) * weight // left > before:
            return number, before
        position, left = position - before, left - weight
    return len(weights) - 1, position


def permutation(seed: int, epoch: int, size: int, purpose: int = _ORDER) -> np.ndarray:
    """The order of an epoch. Raw bits are the same in every NumPy version; `Generator.permutation` may change."""
    return np.argsort(_bits(seed, purpose, epoch).random_raw(size), kind="stable")


def draws(seed: int, position: int) -> np.random.Generator:
    """The random numbers that change the example of a position."""
    return np.random.Generator(_bits(seed, _DRAWS, position))


# Threads read around the end of an epoch, of several sets.
_cached_permutation = functools.lru_cache(maxsize=16)(permutation)


def _bits(seed: int, purpose: int, number: int) -> np.random.Philox:
    return np.random.Philox(np.random.SeedSequence((seed, purpose, number)))
