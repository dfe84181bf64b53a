"""Times of several things that take turns, so that a disturbance meets all of them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping

Burst = Callable[[int], list[float]]
"""Does something so many times and returns the seconds of each."""


def burst_of(action: Callable[[], object]) -> Burst:
    """Times an action of this process."""

    def burst(count: int) -> list[float]:
        times = []
        for _ in range(count):
            start = time.perf_counter()
            action()
            times.append(time.perf_counter() - start)
        return times

    return burst


def in_turns(
    bursts: Mapping[str, Burst], rounds: int, size: int = 3, warm_up: int = 2
) -> dict[str, float]:
    """Median seconds of each.

    Args:
        bursts: What takes turns, by name.
        rounds: Turns of each.
        size: Runs that count in a turn; one before them does not.
        warm_up: Runs of each before the first turn.
    """
    for burst in bursts.values():
        burst(warm_up)
    times: dict[str, list[float]] = {name: [] for name in bursts}
    for _ in range(rounds):
        for name, burst in bursts.items():
            times[name] += burst(size + 1)[1:]
    return {name: statistics.median(seconds) for name, seconds in times.items()}
