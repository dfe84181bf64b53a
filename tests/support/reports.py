"""Comparing reports of runs that should be the same."""

from __future__ import annotations

import copy
from typing import Any


def without_timings(report: dict[str, Any]) -> dict[str, Any]:
    """A report without what depends on the clock: times of phases, rounds, models and operators."""
    stripped = copy.deepcopy(report)
    del stripped["timing_s"]
    for side in stripped["cost"].values():
        del side["latency_ms"]
    for entry in stripped["rounds"]:
        del entry["latency_ms"]
    del stripped["operators"]
    if stripped["recovery"] is not None:
        del stripped["recovery"]["seconds"]
    return stripped
