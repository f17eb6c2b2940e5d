"""Chance that is the same with every NumPy, which promises what bit generators give and not what is made of it."""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

_SEED_BITS = 48
"""Of a derived seed: a JSON reader that knows only floating point numbers keeps it whole."""


class Draws:
    """Random numbers from a seed, in the order in which they are asked for."""

    def __init__(self, seed: int) -> None:
        self._bits = np.random.PCG64(seed)

    def uniform(self, count: int) -> npt.NDArray[np.float64]:
        """Draw from between 0 and 1, neither of them included."""
        raw = np.asarray(self._bits.random_raw(count), dtype=np.uint64)
        return (np.asarray(raw >> np.uint64(12), dtype=np.float64) + 0.5) * 2.0**-52

    def normal(self, count: int) -> npt.NDArray[np.float64]:
        """Draw from the standard normal distribution."""
        return np.asarray(ndtri(self.uniform(count)), dtype=np.float64)

    def below(self, bound: int) -> int:
        """Draw a whole number from 0 up to, but without, ``bound``."""
        return min(bound - 1, int(self.uniform(1)[0] * bound))

    def some_of(self, size: int, count: int) -> npt.NDArray[np.int64]:
        """Draw ``count`` different numbers below ``size``, or all of them when there are no more."""
        chosen: dict[int, None] = {}
        while len(chosen) < min(count, size):
            drawn = np.minimum((self.uniform(count) * size).astype(np.int64), size - 1)
            chosen.update(dict.fromkeys(drawn.tolist()))
        return np.array(list(chosen)[:count], dtype=np.int64)


def derived_seed(seed: int, *names: str) -> int:
    """Return the seed of something named, so that one seed of a run gives each image and change its own."""
    told = "\x1f".join((str(seed), *names))
    return int.from_bytes(hashlib.sha256(told.encode()).digest()[: _SEED_BITS // 8], "big")
