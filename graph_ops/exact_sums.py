"""Sums of numbers that come out the same in any order, to the last bit.

Floating-point addition rounds, so that a sum depends on the order and grouping of its terms. Here
a term is cut into integers instead: a sum is a number in base 2³², from 2⁻¹⁶⁰ up to 2²⁸⁸, and
integers add up exactly. What a term has below 2⁻¹⁶⁰ is cut off, in each term alone, so order does
not matter for that either. This is a fixed-point form of the superaccumulator of U. Kulisch.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LIMBS = 14
LIMB_BITS = 32
LOWEST_BIT = -160
_LARGEST = 2.0**256
"""Room is left above for the sum of 2³² such terms."""
_BLOCK = 2**14
"""Terms cut up in one go: what comes of them stays in the cache, and in memory that is not given
back to the system in between."""
_AT_ONCE = 2**20
"""Rows added in one go: so many integers below 2³² add up exactly in float64."""


@dataclass
class ExactSums:
    """Sums of non-negative numbers.

    Attributes:
        limbs: [K, 14] digits in base 2³², lowest first, int64, each below 2³². A column is worked
            on at a time, so columns should be contiguous (`order="F"`).
        is_lost: [K] whether a term was not finite, or 2²⁵⁶ or more.
    """

    limbs: NDArray[np.int64]
    is_lost: NDArray[np.bool_]

    @classmethod
    def zeros(cls, count: int) -> ExactSums:
        """`count` empty sums."""
        return cls(
            np.zeros((count, LIMBS), dtype=np.int64, order="F"), np.zeros(count, dtype=np.bool_)
        )

    def add(self, terms: NDArray[np.float64]) -> None:
        """Add non-negative terms [N, K] to the K sums."""
        width = max(_BLOCK // max(min(terms.shape[0], _AT_ONCE), 1), 1)
        for first in range(0, self.is_lost.size, width):
            part = slice(first, first + width)
            sums = ExactSums(self.limbs[part], self.is_lost[part])
            for start in range(0, terms.shape[0], _AT_ONCE):
                sums._add(terms[start : start + _AT_ONCE, part])

    def _add(self, terms: NDArray[np.float64]) -> None:
        """Take digits off the terms, from the highest that one of them has down to what is left."""
        fits = terms < _LARGEST
        if not fits.all():
            self.is_lost |= ~fits.all(axis=0)
        rest = np.where(fits, terms, 0.0)
        _, exponent = np.frexp(rest.max(initial=0.0))
        highest = max((int(exponent) - 1 - LOWEST_BIT) // LIMB_BITS, -1)
        digits = np.empty_like(rest)
        lowest = highest + 1
        while lowest > 0 and rest.any():
            lowest -= 1
            unit = 2.0 ** (LIMB_BITS * lowest + LOWEST_BIT)
            np.multiply(rest, 1.0 / unit, out=digits)
            np.floor(digits, out=digits)
            self.limbs[:, lowest] += digits.sum(axis=0).astype(np.int64)
            digits *= unit
            rest -= digits
        self._carry(lowest, highest)

    def _carry(self, lowest: int = 0, highest: int = LIMBS - 2) -> None:
        """Bring every digit below 2³², so that equal sums have equal digits.

        Args:
            lowest: The lowest digit that may not be.
            highest: The highest one.
        """
        for number in range(lowest, LIMBS - 1):
            carried = self.limbs[:, number] >> LIMB_BITS
            if number > highest and not carried.any():
                break
            self.limbs[:, number] &= 2**LIMB_BITS - 1
            self.limbs[:, number + 1] += carried

    def merge(self, other: ExactSums) -> ExactSums:
        """The sums of both."""
        result = ExactSums(self.limbs + other.limbs, self.is_lost | other.is_lost)
        result._carry()
        return result

    @property
    def values(self) -> NDArray[np.float64]:
        """[K] the sums as numbers; NaN where one is lost."""
        total = np.zeros(self.is_lost.size)
        for number in reversed(range(LIMBS)):
            digit = self.limbs[:, number].astype(np.float64)
            total += np.ldexp(digit, LIMB_BITS * number + LOWEST_BIT)
        return np.where(self.is_lost, np.nan, total)
