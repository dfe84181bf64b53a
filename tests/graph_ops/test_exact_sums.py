"""Sums that are the same in any order: against exact fractions, in any grouping."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from graph_ops.exact_sums import LIMB_BITS, LOWEST_BIT, ExactSums

terms = st.floats(min_value=0, max_value=2.0**250, allow_subnormal=False)


def total(values: list[float], *groups: int) -> ExactSums:
    """Sums [1] of values, added in groups that end at these places."""
    result = ExactSums.zeros(1)
    for part in np.split(np.asarray(values, dtype=np.float64), sorted(groups)):
        piece = ExactSums.zeros(1)
        piece.add(part.reshape(-1, 1))
        result = result.merge(piece)
    return result


@settings(max_examples=200)
@given(st.lists(terms, max_size=40), st.randoms(use_true_random=False), st.integers(0, 40))
def test_any_order_and_grouping_gives_the_same_digits(
    values: list[float], random: object, place: int
) -> None:
    shuffled = sorted(values, reverse=True)
    a, b = total(values), total(shuffled, min(place, len(values)))
    np.testing.assert_array_equal(a.limbs, b.limbs)
    np.testing.assert_array_equal(a.values, b.values)


@settings(max_examples=200)
@given(st.lists(st.floats(min_value=1e-20, max_value=1e60), min_size=1, max_size=40))
def test_the_sum_is_the_true_one_to_rounding(values: list[float]) -> None:
    true = float(sum(map(Fraction, values)))
    np.testing.assert_allclose(total(values).values[0], true, rtol=1e-15)


@settings(max_examples=200)
@given(st.lists(st.floats(min_value=0, max_value=2.0**255), min_size=1, max_size=9))
def test_digits_are_those_of_the_terms_cut_off_at_the_lowest_place(values: list[float]) -> None:
    whole = sum(int(Fraction(value) * 2**-LOWEST_BIT) for value in values)
    digits = total(values).limbs[0].tolist()
    assert sum(digit << (LIMB_BITS * n) for n, digit in enumerate(digits)) == whole
    assert all(0 <= digit < 2**LIMB_BITS for digit in digits)


def test_many_columns_are_kept_apart() -> None:
    rng = np.random.default_rng(0)
    values = rng.exponential(size=(500, 7)) * 10.0 ** rng.integers(-30, 30, size=7)
    sums = ExactSums.zeros(7)
    sums.add(values)
    expected = [float(sum(map(Fraction, column))) for column in values.T.tolist()]
    np.testing.assert_allclose(sums.values, expected, rtol=1e-15)


def test_what_is_not_finite_is_lost_and_nothing_else() -> None:
    sums = ExactSums.zeros(3)
    sums.add(np.asarray([[1.0, np.inf, 2.0], [1.0, 1.0, np.nan]]))
    assert sums.is_lost.tolist() == [False, True, True]
    assert sums.values[0] == 2.0
    assert np.isnan(sums.values[1:]).all()
