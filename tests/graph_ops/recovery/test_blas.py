"""How many threads BLAS uses in a refit."""

from __future__ import annotations

import numpy as np
import pytest
import threadpoolctl

from graph_ops.recovery.blas import SMALL, threads_for
from graph_ops.recovery.gram import solve_positive


def blas_threads() -> set[int]:
    return {p["num_threads"] for p in threadpoolctl.threadpool_info() if p["user_api"] == "blas"}


def test_small_matrices_have_one_thread_and_large_ones_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORT_THREADS", "2")
    before = blas_threads()
    with threads_for(SMALL - 1):
        assert blas_threads() == {1}
    with threads_for(SMALL):
        assert blas_threads() == {2}
    assert blas_threads() == before


def test_a_refit_asks_for_them(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def note(order: int) -> object:
        asked.append(order)
        return threads_for(order)

    monkeypatch.setattr("graph_ops.recovery.gram.threads_for", note)
    solved = solve_positive(2 * np.eye(3)[None], np.ones((1, 3, 1)))
    assert asked == [3, 3]  # to factorise, and to solve
    assert solved is not None
    np.testing.assert_allclose(solved, 0.5)
