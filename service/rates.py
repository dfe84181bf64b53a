"""How many requests a key may send: a token bucket for each.

Counted by the process that answers: behind N APIs a key may send N times as much.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

_BURST_S = 10.0
"""A key that was silent may send the requests of so many seconds at once."""

_MAX_BUCKETS = 10_000


class RateLimiter:
    """Buckets by name; each fills at its own rate. Not for use by several threads at once."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._buckets: dict[str, tuple[float, float]] = {}

    def take(self, name: str, per_minute: int) -> float:
        """Take one request's place; 0, or the seconds until there is one."""
        at = self._clock()
        per_second = per_minute / 60.0
        size = max(1.0, per_second * _BURST_S)
        level, since = self._buckets.get(name, (size, at))
        level = min(size, level + (at - since) * per_second)
        if level < 1.0:
            return math.ceil((1.0 - level) / per_second)
        if len(self._buckets) >= _MAX_BUCKETS and name not in self._buckets:
            self._buckets.clear()
        self._buckets[name] = (level - 1.0, at)
        return 0.0
