"""How far a computed array is from the one that is expected."""

from __future__ import annotations

import numpy as np

from graph_ops.runtime import Array


def difference(found: Array, expected: Array) -> tuple[float, float]:
    """Largest absolute difference, and the largest magnitude that is expected.

    Where the expected array is not finite, the other may be anything that is not finite, either.
    Of integers (the positions of maxima, say) it is the share of elements that differ, and 1.

    Args:
        found: Of the same shape as `expected`.
        expected: Any numbers.

    Returns:
        The difference is infinite where only one of the two is finite.
    """
    if expected.dtype.kind != "f":
        return (float(np.mean(found != expected)) if found.size else 0.0), 1.0
    is_finite = np.isfinite(expected)
    a, b = expected[is_finite].astype(np.float64), found[is_finite].astype(np.float64)
    magnitude = float(np.abs(a).max(initial=0.0))
    if not np.array_equal(is_finite, np.isfinite(found)):
        return np.inf, magnitude
    return float(np.abs(a - b).max(initial=0.0)), magnitude


def relative(gap: float, magnitude: float) -> float:
    """A difference as a share of the magnitude; itself where only zeros are expected."""
    return gap / magnitude if magnitude else gap
