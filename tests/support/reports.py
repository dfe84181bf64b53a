"""Comparing reports of runs that should be the same."""

from __future__ import annotations

import copy
from typing import Any


def without_timings(report: dict[str, Any]) -> dict[str, Any]:
    """A report without what depends on the clock: `timing_s`, `latency_ms`, recovery's seconds."""
    stripped = copy.deepcopy(report)
    del stripped["timing_s"]
    for side in stripped["cost"].values():
        del side["latency_ms"]
    if stripped["recovery"] is not None:
        del stripped["recovery"]["seconds"]
    return stripped
