"""How long models take beside each other, on a machine that does other things as well.

Models take turns, so that a machine that slows down slows all of them. A turn is a burst of runs;
the first is not counted, for it finds the caches and threads of the other model. What others do
only ever adds time, and adds it in bursts of their own. So a turn's time is its fastest run, and
the latency the lower quartile of the turns. Where one thread does the work its processor time is
taken, which other programs hardly touch; where several do, the clock's.

How well a ratio is known is found by drawing turns anew with replacement (the bootstrap, Efron
1979); further turns are taken until it is known well enough.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from graph_ops.providers import CPU, thread_count
from graph_ops.runtime import Array

TURNS = (5, 400)
"""Turns of each model: at least, at most."""
BURST_S = 0.02
"""Length of a turn, in seconds; a turn has at least one counted run."""
KNOWN = 0.007
"""Turns end when the ratio's standard error is this small, relatively."""
_QUARTILE = 0.25
_DRAWS = 200


class Timed(Protocol):
    """What is timed: `graph_ops.runtime.Session`, or what behaves like it."""

    provider: str

    def run(self, feeds: Mapping[str, Array]) -> list[Array]:
        """Outputs for the feeds."""


@dataclass(frozen=True)
class Reading:
    """Latencies of two models.

    Attributes:
        before_ms: Of the first.
        after_ms: Of the second.
        error: Standard error of their ratio, relative to it.
    """

    before_ms: float
    after_ms: float
    error: float

    @property
    def ratio(self) -> float:
        """Of the second to the first."""
        return self.after_ms / self.before_ms


def compare(first: Timed, second: Timed, feeds: Mapping[str, Array], *, budget_s: float) -> Reading:
    """Time two models in turns until their ratio is known well.

    Args:
        first: A loaded model.
        second: Another.
        feeds: One batch, the same for both.
        budget_s: No further turn is begun after this many seconds (but for the least number).
    """
    sessions = (first, second)
    clock = _clock(sessions)
    turns: list[list[float]] = [[], []]
    end = time.perf_counter() + budget_s
    while True:
        # The other one first every second time: what grows on the way is then in both.
        order = (0, 1) if len(turns[0]) % 2 == 0 else (1, 0)
        for index in order:
            turns[index].append(_turn(sessions[index], feeds, clock))
        count = len(turns[0])
        if count < TURNS[0]:
            continue
        reading = _reading(np.asarray(turns))
        if count >= TURNS[1] or reading.error <= KNOWN or time.perf_counter() >= end:
            return reading


def _clock(sessions: Sequence[Timed]) -> Callable[[], float]:
    is_one_thread = thread_count() == 1 and all(s.provider == CPU for s in sessions)
    return time.thread_time if is_one_thread else time.perf_counter


def _turn(session: Timed, feeds: Mapping[str, Array], clock: Callable[[], float]) -> float:
    """Milliseconds of the fastest run of a burst."""
    session.run(feeds)
    fastest = np.inf
    ends = time.perf_counter() + BURST_S
    while True:
        start = clock()
        session.run(feeds)
        fastest = min(fastest, clock() - start)
        if time.perf_counter() >= ends:
            return float(fastest) * 1e3


def _reading(turns: NDArray[np.float64]) -> Reading:
    """From [2, turns] milliseconds."""
    drawn = np.random.default_rng(0).integers(0, turns.shape[1], (_DRAWS, turns.shape[1]))
    of_draws = np.quantile(turns[:, drawn], _QUARTILE, axis=2)
    before, after = np.quantile(turns, _QUARTILE, axis=1)
    error = float(np.log(of_draws[1] / of_draws[0]).std())
    return Reading(float(before), float(after), error)
