"""Ratios of latencies: from made-up turns, and of a model with itself."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from graph_ops import timing
from graph_ops.model import load_model
from graph_ops.runtime import Array, Session
from tests.support import digits


class Clockwork:
    """A session whose runs take as long as a list says, on a clock of its own."""

    provider = "CPUExecutionProvider"

    def __init__(self, now: list[float], seconds: list[float]) -> None:
        self._now, self._seconds = now, seconds
        self.runs = 0

    def run(self, feeds: Mapping[str, Array]) -> list[Array]:
        self._now[0] += self._seconds[self.runs % len(self._seconds)]
        self.runs += 1
        return []


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    moment = [0.0]
    monkeypatch.setattr(timing.time, "perf_counter", lambda: moment[0])
    monkeypatch.setattr(timing.time, "thread_time", lambda: moment[0])
    return moment


def compared(first: Clockwork, second: Clockwork, budget_s: float) -> timing.Reading:
    return timing.compare(first, second, {}, budget_s=budget_s)


def test_steady_models_are_known_after_the_least_number_of_turns(now: list[float]) -> None:
    first, second = Clockwork(now, [0.05]), Clockwork(now, [0.03])
    reading = compared(first, second, 100.0)
    assert reading.before_ms == pytest.approx(50)
    assert reading.after_ms == pytest.approx(30)
    assert reading.ratio == pytest.approx(0.6)
    assert reading.error == pytest.approx(0, abs=1e-9)
    assert first.runs == 2 * timing.TURNS[0]


def test_what_others_add_to_most_runs_is_not_taken_for_latency(now: list[float]) -> None:
    rng = np.random.default_rng(0)
    disturbed = rng.random(2000) < 0.6
    slow = np.where(disturbed, rng.exponential(0.05, 2000), 0.0)
    first = Clockwork(now, (0.004 + slow).tolist())
    second = Clockwork(now, (0.0024 + slow[::-1]).tolist())
    reading = compared(first, second, 20.0)
    assert reading.ratio == pytest.approx(0.6, rel=0.02)


def test_turns_go_on_until_the_ratio_is_known_or_the_time_is_up(now: list[float]) -> None:
    rng = np.random.default_rng(1)
    noisy = [Clockwork(now, (0.03 * rng.uniform(1, 3, 5000)).tolist()) for _ in range(2)]
    short = compared(noisy[0], noisy[1], 1.0)
    runs = noisy[0].runs
    longer = compared(noisy[0], noisy[1], 30.0)
    assert noisy[0].runs - runs > 3 * runs
    assert longer.error < short.error


def test_real_models_are_timed() -> None:
    model = load_model(digits.MODEL).model
    feeds = {"image": np.zeros((1, 1, 28, 28), np.float32)}
    reading = timing.compare(Session(model), Session(model), feeds, budget_s=0.2)
    assert reading.before_ms > 0
    assert reading.after_ms > 0
