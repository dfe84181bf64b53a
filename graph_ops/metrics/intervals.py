"""How far a hold-out's size lets the change of a metric be known: 95 % confidence intervals.

Both models are measured on the same samples, so what counts is on which of them they differ.

* Values of 0 and 1 (right or wrong): Newcombe's hybrid score interval for the difference of paired
  proportions (R. G. Newcombe, Statistics in Medicine 17, 1998, pages 2635 to 2650, method 10),
  which keeps its coverage where few samples differ or none do.
* Other values: Student's t interval of the mean difference.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri, stdtrit

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Interval:
    """A change and where it lies.

    Attributes:
        change: Mean of the second minus mean of the first, on the samples seen.
        low: Lower end of the confidence interval.
        high: Upper end.
    """

    change: float
    low: float
    high: float


def paired_interval(
    first: NDArray[np.float64], second: NDArray[np.float64], confidence: float = CONFIDENCE
) -> Interval | None:
    """The change from first to second [n] values of the same samples; None below two samples."""
    if first.size < 2:
        return None
    if all(np.isin(values, (0.0, 1.0)).all() for values in (first, second)):
        return _newcombe(first > 0, second > 0, confidence)
    difference = second - first
    change = float(difference.mean())
    error = float(difference.std(ddof=1)) / math.sqrt(difference.size)
    reach = float(stdtrit(difference.size - 1, (1 + confidence) / 2)) * error
    return Interval(change, change - reach, change + reach)


def _newcombe(first: NDArray[np.bool_], second: NDArray[np.bool_], confidence: float) -> Interval:
    """Method 10 of Newcombe 1998, for second − first."""
    n = first.size
    both, only_second = int((first & second).sum()), int((~first & second).sum())
    only_first, neither = int((first & ~second).sum()), int((~first & ~second).sum())
    p, q = (both + only_second) / n, (both + only_first) / n
    p_low, p_high = _wilson(p, n, confidence)
    q_low, q_high = _wilson(q, n, confidence)
    phi = _correlation(both, only_second, only_first, neither)
    below = _hypotenuse(p - p_low, q_high - q, phi)
    above = _hypotenuse(p_high - p, q - q_low, phi)
    return Interval(p - q, max(-1.0, p - q - below), min(1.0, p - q + above))


def _hypotenuse(a: float, b: float, phi: float) -> float:
    return math.sqrt(max(0.0, a * a - 2 * phi * a * b + b * b))


def _correlation(a: int, b: int, c: int, d: int) -> float:
    """Correlation of the two, moved towards zero by half a sample where it is positive."""
    margins = (a + b) * (c + d) * (a + c) * (b + d)
    if margins == 0:
        return 0.0
    product = float(a * d - b * c)
    if product > 0:
        product = max(product - (a + b + c + d) / 2, 0.0)
    return product / math.sqrt(margins)


def _wilson(share: float, n: int, confidence: float) -> tuple[float, float]:
    """Wilson's score interval of a proportion."""
    z = float(ndtri((1 + confidence) / 2))
    centre = share + z * z / (2 * n)
    reach = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return (centre - reach) / (1 + z * z / n), (centre + reach) / (1 + z * z / n)
