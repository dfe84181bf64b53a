"""Streamed equations against NumPy's least squares, and against each other."""

from __future__ import annotations

import numpy as np
import pytest

from graph_ops.recovery.gram import DualEquations, Equations, NormalEquations
from graph_ops.recovery.ridge import HeldOut, choose
from graph_ops.runtime import Array


def problem(rows: int, inputs: int, groups: int = 1, noise: float = 0.1) -> tuple[Array, Array]:
    """Rows off the origin, and residuals that are affine in them but for noise."""
    rng = np.random.default_rng(rows + inputs)
    x = rng.standard_normal((groups, rows, inputs)) * rng.uniform(0.5, 2, inputs) + 3
    true = rng.standard_normal((groups, inputs, 2))
    return x, np.matmul(x, true) + 1.5 + noise * rng.standard_normal((groups, rows, 2))


def feed(equations: Equations, x: Array, e: Array, batch: int = 16) -> None:
    for begin in range(0, x.shape[1], batch):
        equations.add(x[:, begin : begin + batch], e[:, begin : begin + batch])


@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize("has_intercept", [True, False])
def test_without_ridge_it_is_least_squares(groups: int, has_intercept: bool) -> None:
    x, e = problem(100, 7, groups)
    equations = NormalEquations(has_intercept)
    feed(equations, x, e)
    change = equations.solve(0.0)
    assert change is not None
    assert equations.count == 100
    for group in range(groups):
        ones = np.ones((100, 1))[:, : int(has_intercept)]
        expected = np.linalg.lstsq(np.hstack([x[group], ones]), e[group])[0]
        np.testing.assert_allclose(change.weights[group], expected[:7], rtol=1e-8)  # type: ignore[index]
        if has_intercept:
            np.testing.assert_allclose(change.bias[group], expected[7], rtol=1e-8)


@pytest.mark.parametrize("has_intercept", [True, False])
@pytest.mark.parametrize("ridge", [1e-3, 0.1, 10.0])
def test_the_dual_form_has_the_same_solution(has_intercept: bool, ridge: float) -> None:
    x, e = problem(30, 80)
    normal, dual = NormalEquations(has_intercept), DualEquations(has_intercept)
    for equations in (normal, dual):
        feed(equations, x.astype(np.float32), e)
    a, b = normal.solve(ridge), dual.solve(ridge)
    assert a is not None
    assert b is not None
    np.testing.assert_allclose(a.weights, b.weights, atol=2e-5)
    np.testing.assert_allclose(a.bias, b.bias, atol=5e-4)
    np.testing.assert_allclose(normal.shift().bias, dual.shift().bias)


def test_memory_depends_on_the_width_of_a_row_alone() -> None:
    sizes = []
    for rows in (50, 5000):
        equations = NormalEquations()
        feed(equations, *problem(rows, 6))
        sizes.append(sum(a.nbytes for a in vars(equations).values() if isinstance(a, np.ndarray)))
    assert sizes[0] == sizes[1]


@pytest.mark.parametrize("equations", [NormalEquations(), DualEquations()])
def test_constant_rows_have_no_solution_but_a_shift(equations: Equations) -> None:
    feed(equations, np.full((1, 40, 5), 2.0), np.full((1, 40, 2), 0.25))
    assert equations.solve(1e-3) is None
    np.testing.assert_allclose(equations.shift().bias, 0.25)


def test_collinear_inputs_are_solved_with_a_ridge_and_refused_without() -> None:
    x, e = problem(100, 4)
    x = np.concatenate([x, x[:, :, :1], np.zeros((1, 100, 1))], axis=2)
    equations = NormalEquations()
    feed(equations, x, e)
    assert equations.solve(0.0) is None
    change = equations.solve(1e-6)
    assert change is not None
    assert np.abs(e - change.predict(x)).max() < 0.5


def held_out(x: Array, e: Array) -> HeldOut:
    found = HeldOut()
    found.add(x, e, e + 1)
    return found


def test_the_ridge_weight_is_the_best_on_what_was_set_aside() -> None:
    x, e = problem(60, 40, noise=20.0)
    equations = NormalEquations()
    feed(equations, x[:, :45], e[:, :45])
    check = held_out(x[:, 45:], e[:, 45:])
    ridges = (1e-6, 1e-3, 1e-1, 1.0, 10.0)
    choice = choose(equations, check, ridges=ridges)
    errors = {r: check.error(equations.solve(r)) for r in ridges}
    assert choice.ridge == min(errors, key=lambda r: errors[r])
    assert choice.after == errors[choice.ridge]
    assert choice.after < choice.before


def test_nothing_is_changed_where_that_is_best() -> None:
    rng = np.random.default_rng(0)
    x, e = rng.standard_normal((1, 40, 30)), rng.standard_normal((1, 40, 2))
    equations = NormalEquations()
    feed(equations, x[:, :20], e[:, :20] + 1)
    choice = choose(equations, held_out(x[:, 20:], e[:, 20:] - 1), ridges=(1e-3, 1e-1))
    assert choice.change is None
    assert choice.after == choice.before
